"""The one command for a machine with a graphics card: does all of this work there, and how fast is it?

python -m minigrad.hardware_check                                    all cards that are there, at most two
python -m minigrad.hardware_check --quick                            what matters most, in 90 seconds
python -m minigrad.hardware_check --devices cudasim:0,cudasim:1      the same on the emulator, small

The parts, in order of worth:

first.py      first light: one op of each sort, and all kernels compiled at once
compare.py    every op on the card against NumPy and against the emulator, forward and backward
steps.py      AlexNet's and LeNet's train step and inference beside PyTorch's; the step in two columns on one card
kernels.py    convolutions against the card's arithmetic, ops that move numbers against its memory
learning.py   a training run by the main job, beside PyTorch's
sanitizer.py  compute-sanitizer over every kernel's cases, beside the emulator's check mode
roofline.py   every op's time against what the card's memory and arithmetic would allow
tests.py      the project's tests on the card

and what they need:

machine.py    what is here: cards, driver, CuPy, CUDA
process.py    each part in a process of its own, with a time limit: what crashes or hangs there loses nothing else
report.py     what a part tells: rows, and failures
__main__.py   the command, which writes what they find to a file, as they find it
"""
