"""What can be set: the configuration, its schema, the variants that it spells, and the files of each kind."""
