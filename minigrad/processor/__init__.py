"""The processor as a device: cpu:N and textbook:N, threads, BLAS, memory, and chunks of images."""
