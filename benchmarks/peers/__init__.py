"""The race's entrants, one file each, run by the Python of their own environment (NAME.txt says what is in it).

A file has two functions:

    prepare(folder, case)          writes the case's rows into `folder`, in the peer's own format
    loader(folder, case, workers)  a context manager; gives epoch(number) -> iterator of dicts of torch tensors

written as the peer's documentation does it: its defaults, shuffled; where a shuffle buffer has no default, of
`case.buffer` rows.
"""
