"""What looks at a program at work: the profiler, the debugger, and gradcheck."""
