"""Rules of operators: for each family of operators one file, which ends with the table of its rules."""
