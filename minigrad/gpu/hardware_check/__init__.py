"""The one command for a machine with a graphics card: does all of this work there, and how fast is it?

python -m minigrad.hardware_check                                    all cards that are there, at most two
python -m minigrad.hardware_check --devices cudasim:0,cudasim:1      the same on the emulator, small

machine.py    what is here: cards, driver, CuPy, CUDA
tests.py      the project's tests on the card
compare.py    every op on the card against NumPy and against the emulator, forward and backward
roofline.py   every op's time against what the card's memory and arithmetic would allow
training.py   the AlexNet train step on one card and on two, against PyTorch
process.py    each of these in a process of its own, with a time limit: what crashes or hangs there loses nothing else
report.py     what a part tells: rows, and failures
__main__.py   the command, which writes what they find to a file, as they find it
"""
