"""The op atlas: pages about every op, made from the code by `python docs/atlas/build.py`.

formulas and listing turn LaTeX and code into HTML, shell turns a page's parts into one file that needs nothing else,
contents names all pages, build writes them and follows every link.  Every number on a page comes out of the code that
the page is about, while the page is made.
"""
