"What every test can count on: public data from a local mirror where there is one, one thread, no window, tables 80 columns wide"
import os
from pathlib import Path

mirror = Path(__file__).resolve().parents[2]/'shared'/'mirror'
if mirror.is_dir(): os.environ.setdefault('BRAINLM_MIRROR', str(mirror))
for k,v in dict(OMP_NUM_THREADS='1', MPLBACKEND='Agg', COLUMNS='80', LINES='24').items(): os.environ[k] = v
