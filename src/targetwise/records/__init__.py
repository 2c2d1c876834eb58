"""The record of a cell: what its number was made from and with, and whether it can be made again."""
