"""What is reached by HTTP: the run API of the functions, and the doors of people and programs."""
