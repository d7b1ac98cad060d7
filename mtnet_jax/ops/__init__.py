"""Operations: first the definition, then the forms that are fast somewhere."""
