"""What does a person type to train, evaluate, predict, explain or export?"""
