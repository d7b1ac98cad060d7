"""What users do with the library, from beginning to end."""
