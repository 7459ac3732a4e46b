"""The ops, one room each: formula, derivative, source, and the code that follows them.

The public functions are collected in minigrad/functional.py.
"""
