"""Row transforms: each a function of the rows alone, so that what it makes can be kept."""
