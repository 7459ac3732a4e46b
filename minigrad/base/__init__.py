"""What everything else uses: checks of settings, files, indices, element types, random numbers, Ctrl-C, no_grad."""
