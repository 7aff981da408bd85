"From processed notebooks to a site that reads like a book; `tools/docs.py` calls it, with either engine"
