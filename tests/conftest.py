"What every test can count on: public data from a local mirror where there is one, one thread, no window, tables 80 columns wide"
import io
import os
import runpy
import sys
import traceback
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import pytest

mirror = Path(__file__).resolve().parents[2]/'shared'/'mirror'
if mirror.is_dir():
    os.environ.setdefault('BRAINLM_MIRROR', str(mirror))
plain = dict(OMP_NUM_THREADS='1', MPLBACKEND='Agg', COLUMNS='80', LINES='24')
os.environ.update(plain)

# Processes of their own that do not import everything anew: forks of one that has imported the slow libraries

slow_libraries = ['torch','torch._dynamo','pandas','matplotlib.pyplot','nbdev.test','scipy.stats','scipy.signal','scipy.optimize','sklearn.linear_model',
                  'sklearn.model_selection','sklearn.ensemble','nibabel','nilearn.surface','nilearn.plotting','zarr','pyarrow.parquet',
                  'seaborn'] # not fastai: it patches torch.Tensor for all
forks = get_context('forkserver')
forks.set_forkserver_preload(slow_libraries)

def alone(f, *args):
    "What `f` gives back in a new process"
    with ProcessPoolExecutor(1, mp_context=forks) as ex: return ex.submit(f, *args).result()

def _ended(f):
    "The exit code of a program that `f` runs"
    try: return f() or 0
    except SystemExit as e:
        if isinstance(e.code, str): print(e.code, file=sys.stderr)
        return 1 if isinstance(e.code, str) else e.code or 0
    except BaseException:
        traceback.print_exc()
        return 1

def _program(what, args, cwd, env):
    "Run a script (its path), code (a string with a line break) or `brainlm` (None) as a program; exit code, output, errors"
    os.environ.update(env)
    os.chdir(cwd)
    sys.path.insert(0, str(what.parent if isinstance(what, Path) else cwd))
    sys.argv = [str(what), *args]
    out,err = io.StringIO(),io.StringIO()
    def go():
        if what is None:
            from brainlm.cli import main
            return main(args)
        if isinstance(what, Path): runpy.run_path(str(what), run_name='__main__')
        else: exec(what, dict(__name__='__main__'))
    with redirect_stdout(out), redirect_stderr(err): code = _ended(go)
    return code, out.getvalue(), err.getvalue()

def program(what, *args, cwd=None, **env):
    "As `subprocess.run` of a script, of code or (None) of `brainlm`: returncode, stdout, stderr"
    found = alone(_program, what, [str(o) for o in args], str(cwd or Path.cwd()), env)
    return SimpleNamespace(**dict(zip(('returncode','stdout','stderr'), found, strict=True)))

@pytest.fixture
def coarse_cortex(monkeypatch):
    "Cortex of eight triangles a side, where something else than its picture is tested"
    import numpy as np
    from fastcore.basics import AttrDict
    from nilearn.surface import InMemoryMesh, PolyMesh

    import brainlm.attention as room
    corners = np.array([[x, y, z] for axis in np.eye(3) for x,y,z in (axis, -axis)])*[25, 60, 40]
    faces = np.array([[x, y, z] for x in (0, 1) for y in (2, 3) for z in (4, 5)])
    mesh = PolyMesh(**{side: InMemoryMesh(corners+[at, 0, 10], faces) for side,at in (('left', -35), ('right', 35))})
    areas = dict.fromkeys(('left', 'right'), np.full(len(corners), 'somewhere'))
    monkeypatch.setattr(room, '_hcp_surfaces', lambda: AttrDict(inflated=mesh, midthickness=mesh, areas=areas))

def pytest_terminal_summary(terminalreporter):
    "Which cells of notebooks were not compared, and why; nothing where all the data are at hand"
    reports = [r for kind in ('passed', 'failed') for r in terminalreporter.stats.get(kind, [])]
    for line in dict.fromkeys(v for r in reports for k,v in r.user_properties if k=='not compared'):
        terminalreporter.write_line(f'NOT COMPARED {line}')
