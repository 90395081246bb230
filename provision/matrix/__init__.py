"""``invoke matrix``: labs × kernels × repeats, planned, run, resumed. What the runs mean is the word of ``reports``."""
