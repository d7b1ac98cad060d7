"""What does a network cost, is it better than another, is it calibrated?"""
