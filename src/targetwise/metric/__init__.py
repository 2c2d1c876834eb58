"""FID, KID and their references: every number a row with the digests of what it was made from."""
