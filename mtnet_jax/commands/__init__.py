"""What does a person type after `mtnet`?"""
