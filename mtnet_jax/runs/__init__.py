"""What does a run's folder hold?"""
