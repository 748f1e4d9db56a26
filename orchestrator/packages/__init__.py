"""What other packages add: the names of their entry points, how they are found, and what a service of theirs is given.

docs/extending/ has a page for each kind of addition, docs/examples/ a complete package.
"""
