"""Which commands are there after `mtnet`?"""
