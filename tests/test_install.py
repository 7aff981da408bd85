"What others get: the sdist and the wheel, what they install, and one line where an extra is missing"
import importlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from pathlib import Path
from types import SimpleNamespace

import pytest

root = Path(__file__).resolve().parents[1]
source = ['pyproject.toml', 'settings.ini', 'setup.py', 'MANIFEST.in', 'README.md', 'constraints.txt', 'NOTICE', 'LICENSE',
          'CHANGELOG.md', 'CITATION.cff']

def command(*args, **kw):
    "Run a command; fail with what it said"
    r = subprocess.run([str(o) for o in args], capture_output=True, text=True, stdin=subprocess.DEVNULL, **kw)
    assert r.returncode==0, f"{' '.join(map(str, args))} failed\n{r.stdout[-3000:]}{r.stderr[-3000:]}"
    return r.stdout

def build(kind, tree, dest):
    "The sdist or wheel of a source tree, made with the setuptools that is here"
    dest.mkdir()
    command(sys.executable, '-c', f'from setuptools import build_meta; build_meta.build_{kind}({str(dest)!r})', cwd=tree)
    return next(dest.iterdir())

@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "The sdist of this tree, and the wheel that is made from that sdist"
    tmp = tmp_path_factory.mktemp('built')
    ignore = shutil.ignore_patterns('__pycache__', '*.egg-info')
    shutil.copytree(root/'brainlm', tmp/'tree'/'brainlm', ignore=ignore)
    for f in source: shutil.copy(root/f, tmp/'tree'/f)
    sdist = build('sdist', tmp/'tree', tmp/'sdist')
    with tarfile.open(sdist) as t: t.extractall(tmp/'unpacked', filter='data')
    return sdist, build('wheel', next((tmp/'unpacked').iterdir()), tmp/'wheel')

def test_sdist_holds_what_it_needs(built):
    with tarfile.open(built[0]) as t: names = {n.partition('/')[2] for n in t.getnames()}
    assert set(source)-{'MANIFEST.in'} <= names

def test_wheel_holds_what_it_needs(built):
    with zipfile.ZipFile(built[1]) as z: names = set(z.namelist())
    tables = {f'brainlm/parcellations/{f.name}' for f in (root/'brainlm'/'parcellations').iterdir()}
    model = {f.relative_to(root).as_posix() for f in (root/'brainlm'/'models').rglob('*') if f.is_file()}
    assert {'brainlm/py.typed', 'brainlm/model.py', *tables, *model} <= names
    assert {'brainlm/models/brainlm-small/model.safetensors', 'brainlm/models/brainlm-small/HCP_TERMS.txt'} <= names
    assert sum((root/o).stat().st_size for o in model) < 8e6
    assert {'LICENSE', 'NOTICE'} <= {n.rpartition('/')[2] for n in names}
    assert not (other := {n for n in names if n.partition('/')[0].partition('-')[0]!='brainlm'}), other

check = """
import brainlm, sys
from pathlib import Path
from brainlm.atlas import load_parcellation
assert Path(brainlm.__file__).is_relative_to(sys.prefix), brainlm.__file__
from brainlm.model import BrainLM
print(brainlm.__version__, *[len(load_parcellation(n)) for n in ('glasser360', 'a424', 'aal2')])
print(len(BrainLM.from_pretrained('brainlm-small', 'aal2').prior.mean))
"""

def test_wheel_works_outside_the_tree(built, tmp_path):
    "In an environment of its own, which sees the packages that are here"
    venv = tmp_path/'venv'
    command(sys.executable, '-m', 'venv', '--without-pip', venv)
    python = venv/('Scripts' if os.name=='nt' else 'bin')/'python'
    site = Path(command(python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))').strip())
    here = [p for p in sys.path if Path(p).name in ('site-packages', 'dist-packages')]
    (site/'packages_of_the_tests.pth').write_text('\n'.join(here))
    env = {k:v for k,v in os.environ.items() if k!='PYTHONPATH'}
    install = [sys.executable, '-m', 'pip', '--python', python, 'install', '--no-deps', '--no-index', '--ignore-installed', built[1]]
    command(*install, cwd=tmp_path, env=env)
    out = command(python, '-c', check, cwd=tmp_path, env=env).split()
    assert out[1:]==['360', '424', '94', '94']
    assert 'pretrain' in command(python.with_name('brainlm'), '--help', cwd=tmp_path, env=env)

# Extras: what only one feature needs

def extras():
    "The packages of each extra, as settings.ini says"
    ini = ConfigParser(delimiters=['='], interpolation=None)
    ini.read(root/'settings.ini', encoding='utf-8')
    found = {k.removesuffix('_requirements'):v.split() for k,v in ini['DEFAULT'].items() if k.endswith('_requirements')}
    return {k:{re.split('[<>=]', o)[0] for o in v} for k,v in found.items() if k!='dev'}

def test_extras_bring_what_is_asked_for():
    "Each use of `optional` names an extra that brings its package, and no extra is without a use"
    calls = re.compile(r"optional\('([\w.]+)', '(\w+)'")
    used = {(extra, module.partition('.')[0]) for f in (root/'brainlm').glob('*.py') for module,extra in calls.findall(f.read_text(encoding='utf-8'))}
    assert used=={(extra, package) for extra,packages in extras().items() for package in packages}

def test_no_extra_is_needed_to_import():
    rooms = [f.stem for f in sorted((root/'brainlm').glob('[!_]*.py'))]
    absent = sorted(o for v in extras().values() for o in v)
    code = f'import importlib, sys\nfor o in {absent}: sys.modules[o] = None\nfor o in {rooms}: importlib.import_module("brainlm."+o)'
    command(sys.executable, '-c', code, cwd=root, env={**os.environ, 'PYTHONPATH':str(root)})

watched = SimpleNamespace(run_folder=SimpleNamespace(company=SimpleNamespace(rank=0)))

features = dict(
    attribution=('captum', 'attention', lambda room: room.attribution(None, None)),
    ode=('torchdiffeq', 'baselines', lambda room: room._flow(None, None, 1)),
    cluster=('distributed', 'spreading', lambda room: room.dask_client(2).__enter__()),
    distributed=('accelerate', 'processes', lambda room: room.Several(0, 2, True)._averaging(None)),
    hdf5=('h5py', 'readers', lambda room: room.formats['hdf5'].read(None, None, None)),
    eeg=('mne', 'electrophysiology', lambda room: room._mne()),
    lora=('peft', 'protocol', lambda room: room.peft()),
    s3=('s3fs', 'recordings', lambda room: room._lacks_back_end('s3://bucket/store', ImportError('no s3fs'))),
    interactive=('plotly', 'turning', lambda room: room.turning_page({}, 'x')),
    tensorboard=('tensorboard', 'pretraining', lambda room: room.track(watched, 'tensorboard')),
    wandb=('wandb', 'pretraining', lambda room: room.track(watched, 'wandb')))

@pytest.mark.parametrize('extra', features)
def test_a_missing_extra_says_how_to_get_it(extra, monkeypatch):
    package,room,use = features[extra]
    room = importlib.import_module(f'brainlm.{room}')
    for o in [package, *(o for o in sys.modules if o.startswith(package+'.'))]: monkeypatch.setitem(sys.modules, o, None)
    with pytest.raises(ImportError) as e: use(room)
    assert f"pip install 'brainlm[{extra}]'" in str(e.value) and '\n' not in str(e.value)

def test_every_extra_is_tried(): assert set(features)==set(extras())

def test_brainlm_alone_lists_every_extra():
    from brainlm.cli import _parts
    assert {k: {v} for k,v in _parts.items()}==extras()
