"""Why did a network choose a class, and is the explanation to be believed?"""
