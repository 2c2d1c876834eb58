"""The check before any training: are the two functions of a parameterization pure, and inverses of each other?"""
