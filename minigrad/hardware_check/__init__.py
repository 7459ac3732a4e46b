"""The one command for a machine with a graphics card: does all of this work there, and how fast is it?

python -m minigrad.hardware_check                                    all cards that are there, at most two
python -m minigrad.hardware_check --devices cudasim:0,cudasim:1      the same on the emulator, small

machine.py    what is here: cards, driver, CuPy, CUDA
tests.py      the project's tests on the card
compare.py    every op on the card against NumPy and against the emulator, forward and backward
roofline.py   every op's time against what the card's memory and arithmetic would allow
training.py   the AlexNet train step on one card and on two, against PyTorch
__main__.py   the command, which writes what they found to a file
"""
