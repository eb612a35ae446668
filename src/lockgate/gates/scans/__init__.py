"""Gates that ask no model: they look at what a package is made of, what reaches it, and what is written about it.

A scan that did not run is an error. There is nothing to estimate in any of them: they count findings, and the limit
is none.
"""
