"""The page of a run, report.html, and that of all runs, index.html: what they show, and how they are written.

curves -> exhibits -> facts -> document -> live, index: each knows those before it.  curves reads the log, exhibits are
pictures, facts is all of a page's data as JSON can hold it, document puts data into the HTML, live rewrites it as
training goes; events writes TensorBoard's files beside it.  report.html, index.html, page.css and the .js files are
what a browser reads; they get names and numbers from the data alone, and never as HTML.
"""
