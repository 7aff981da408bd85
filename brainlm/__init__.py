"BrainLM, a foundation model of fMRI, as a library and as a book"

__version__ = "0.3.0"
