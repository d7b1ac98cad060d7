"""How do the runs of one of the thesis's tables compare when trained here?"""
