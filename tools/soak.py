"""Writers, readers, kills, a full disk, damage and resumed trainings on one machine, for as long as one likes

    python tools/soak.py --minutes 60 --seed 0 --out tools/soak_figures.tsv

What an acknowledged recording holds follows from its number alone, so that everybody can check everything. Processes
are killed with SIGKILL at seeded moments. A full disk is a limit of the kernel on the size of files (RLIMIT_FSIZE),
which fails in the middle of a write as a full disk does, without any right to mount one. At the end a row of figures
is written; `lost` and `corrupted` must be 0, and so must be `unnamed`, damage that was done on purpose and not named."""
import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import date
from pathlib import Path

os.environ['OMP_NUM_THREADS'] = '1'
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402

from brainlm import __version__  # noqa: E402
from brainlm.atlas import Parcellation, load_parcellation  # noqa: E402
from brainlm.recordings import Recording, RecordingStore, StoreLocked  # noqa: E402

def recording(k, n_parcels=5):
    "Simulated recording number `k`, always the same"
    rng = np.random.default_rng(k)
    x = rng.normal(1000, 1, (int(rng.integers(20, 90)), n_parcels)).astype('float32')
    return Recording(x, 1., f's{k}', covariates={'k': k}, provenance='simulated')

def parcels(n=5):
    return Parcellation(f'first {n}', load_parcellation('glasser360').table.iloc[:n].reset_index(drop=True))

def note(path, **what):
    "Add a line to a file of notes; on the disk before this returns"
    with open(path, 'a') as f:
        f.write(json.dumps(what)+'\n')
        f.flush()
        os.fsync(f.fileno())

def notes(path):
    "What was noted; a line that a kill cut is left out"
    for line in path.read_text().split('\n') if path.exists() else []:
        try: yield json.loads(line)
        except ValueError: pass

def quota(n):
    "From now on no file may grow beyond `n` bytes; None: any size"
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if n is None else n, hard))

def write_on(home, me, seed):
    "Append batch after batch, now and then on a full disk; note what was acknowledged, until killed"
    rng = random.Random(seed)
    k,log = 10**6*me + max([0, *(max(o['ks'])%10**6+1 for o in notes(home/f'writer{me}') if 'ks' in o)]),home/f'writer{me}'
    while True:
        ks = list(range(k, k+rng.randint(1, 4)))
        full = rng.random() < .15
        quota(rng.randint(0, 5000) if full else None)
        try:
            RecordingStore(home/'store').extend(map(recording, ks), wait_s=rng.choice([0, 0, 5]))
            quota(None)
            note(log, ks=ks)
            k += len(ks)
        except StoreLocked:
            quota(None)
            note(log, refused='locked')
        except ValueError as e: # Committed, and killed before it was noted
            quota(None)
            if 'duplicate' not in str(e): raise
            note(log, refused='there already')
            k += 1
        except OSError:
            quota(None)
            note(log, refused='full disk')
        time.sleep(rng.uniform(.1, 1.5))

def is_right(store, i):
    "Is recording `i` of a store, byte by byte, what its number says?"
    return store.read(i).tobytes() == recording(int(store.table['k'].iloc[i])).signal.tobytes()

def read_on(home, me, seed):
    "Read at random, some of it in a store that was opened long ago; note how often, and what was wrong"
    rng,log,store = random.Random(seed),home/f'reader{me}',RecordingStore(home/'store')
    while True:
        if rng.random() < .3: store.refresh()
        if rng.random() < .1: store = RecordingStore(home/'store')
        right = wrong = 0
        for i in [rng.randrange(len(store)) for _ in range(20)] if len(store) else []:
            if is_right(store, i): right += 1
            else: wrong += 1
        note(log, right=right, wrong=wrong)
        time.sleep(rng.uniform(.2, 1.2))

def train(home, folder):
    "A small training, taken up where it was"
    import torch

    from brainlm.model import BrainLMConfig
    from brainlm.pretraining import Training, pretrain_learner
    torch.set_num_threads(1)
    sizes = dict(width=16, layers=2, heads=2, mlp=32, decoder_width=16, decoder_layers=2, decoder_heads=2, decoder_mlp=32)
    config = BrainLMConfig(n_parcels=5, n_time=40, **sizes)
    store = RecordingStore(home/'people')
    how = Training(batch_size=2, progress=False, device='cpu')
    pretrain_learner(store, config, folder, ['train']*6+['valid']*2, training=how).pretrain(12, lr=1e-3, resume=True)

def start(home, role, *args):
    words = [sys.executable, '-W', 'ignore', __file__, '--role', role, '--home', str(home), *map(str, args)]
    return subprocess.Popen(words, stderr=open(home/'errors', 'a'))

def train_through_kills(home, rng, n, count):
    "Kill a training two times, let it end, and compare it with one that nobody touched"
    folder = home/f'run{n}'
    for _ in range(2):
        p = start(home, 'train', '--folder', folder)
        try: p.wait(rng.uniform(6, 25))
        except subprocess.TimeoutExpired:
            p.kill()
            count['trainings killed'] += 1
        p.wait()
        yield
    p = start(home, 'train', '--folder', folder)
    while p.poll() is None: yield
    same = [(home/o/'last/model.safetensors') for o in ('whole', f'run{n}')]
    equal = p.returncode==0 and same[0].read_bytes()==same[1].read_bytes()
    count['trainings equal to an untouched one' if equal else 'trainings that differ'] += 1
    shutil.rmtree(folder, ignore_errors=True)

def rest_is_right(store, hit):
    "Is what `readable` leaves everybody but those, byte by byte?"
    if len(hit)==len(store): return True
    rest = store.readable()
    return sorted(rest.damaged)==sorted(f'sub-{s}' for s in hit) and all(is_right(rest, i) for i in range(len(rest)))

def damage(home, rng, count):
    "Spoil a chunk of a copy: it must be named, and nothing else; all the rest is read"
    with RecordingStore(home/'store').writer(wait_s=60): shutil.copytree(home/'store', home/'copy')
    store = RecordingStore(home/'copy')
    if len(store):
        i = rng.randrange(len(store))
        c = int(store._start[i])//store.attrs['chunk_rows']
        f = home/'copy/bold'/f'c.{c}.0'
        x = bytearray(f.read_bytes())
        how = rng.choice(['bit', 'zeros', 'cut', 'gone'])
        if how=='bit': x[rng.randrange(len(x))] ^= 1 << rng.randrange(8)
        if how=='zeros': x = bytes(len(x))
        if how=='cut': x = x[:rng.randrange(len(x))]
        f.write_bytes(x)
        if how=='gone': f.unlink()
        n,found = store.attrs['chunk_rows'],store.check().damaged
        hit = [o.subject for o in store.table.itertuples() if o.start < c*n+n and o.start+o.n_time > c*n]
        right = sorted(found)==sorted(f'sub-{s}' for s in hit) and rest_is_right(store, hit)
        count['damage named' if right else 'unnamed'] += 1
    shutil.rmtree(home/'copy')

def account(home, count):
    "What the notes say, held against the store"
    logs = [o for f in home.glob('writer?') for o in notes(f)]
    said = [k for o in logs for k in o.get('ks', ())]
    count.update(o['refused'] for o in logs if 'refused' in o)
    for o in (o for f in home.glob('reader?') for o in notes(f)):
        count['reads'] += o['right']
        count['corrupted'] += o['wrong']
    store = RecordingStore(home/'store')
    report,there = store.check(),set(store.table['k'])
    count['acknowledged'] += len(said)
    count['lost'] += len(set(said)-there)
    count['corrupted'] += len(report.damaged)+sum(not is_right(store, i) for i in range(len(store)))
    count['left over'] += len([o for o in (home/'store').rglob('*part*') if o.suffix in ('.part', '.partial')])
    for f in [*home.glob('writer?'), *home.glob('reader?')]: f.unlink()

def generation(home, rng, end, count, first):
    "One store, from empty to checked"
    shutil.rmtree(home/'store', ignore_errors=True)
    RecordingStore.create(home/'store', parcels(), chunk_rows=16)
    roles = [('write', 1), ('write', 2), ('read', 3), ('read', 4)]
    now = {r: start(home, r[0], '--me', r[1], '--seed', rng.randrange(10**9)) for r in roles}
    training,n = train_through_kills(home, rng, first, count),0
    while time.time() < end:
        time.sleep(rng.uniform(1, 6))
        r = rng.choice(roles)
        if now[r].poll() is not None: count['ended by themselves'] += 1
        else: count[f"{dict(write='writers', read='readers')[r[0]]} killed"] += 1
        now[r].kill()
        now[r].wait()
        now[r] = start(home, r[0], '--me', r[1], '--seed', rng.randrange(10**9))
        next(training, None)
        n += 1
        if n%20==0: damage(home, rng, count)
    for p in now.values():
        p.kill()
        p.wait()
    for _ in training: time.sleep(1)
    account(home, count)

def soak(minutes, seed, each=600):
    "The figures of so many minutes"
    rng,count,began = random.Random(seed),Counter(),time.time()
    with tempfile.TemporaryDirectory(prefix='soak') as tmp:
        home = Path(tmp)
        RecordingStore.create(home/'people', parcels()).extend(map(recording_of_a_person, range(8)))
        start(home, 'train', '--folder', home/'whole').wait()
        for n in range(10**6):
            left = began+60*minutes-time.time()
            if left < 20: break
            generation(home, rng, time.time()+min(each, left), count, n)
            print(f'{(time.time()-began)/60:.0f} min', dict(count), flush=True)
        errors = (home/'errors').read_text()
        if errors: print(errors[-3000:], file=sys.stderr)
    return dict(minutes=round((time.time()-began)/60), seed=seed, **count)

def recording_of_a_person(k):
    x = np.random.default_rng(k).normal(0, 1, (200, 5)).astype('float32')
    return Recording(x, 1., f'p{k}', provenance='simulated')

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--minutes', type=float, default=1)
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--out', help='table to write: figure and value')
    for name in ('role', 'home', 'folder'): p.add_argument(f'--{name}', help=argparse.SUPPRESS)
    p.add_argument('--me', type=int, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.role=='write': write_on(Path(a.home), a.me, a.seed)
    if a.role=='read': read_on(Path(a.home), a.me, a.seed)
    if a.role=='train': train(Path(a.home), a.folder)
    if a.role: return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    got = dict(date=str(date.today()), version=__version__, lost=0, corrupted=0, unnamed=0) | soak(a.minutes, a.seed)
    rows = ''.join(f'{k}\t{v}\n' for k,v in got.items())
    if a.out: Path(a.out).write_text('figure\tvalue\n'+rows)
    print(rows)
    return int(any(got.get(k) for k in ('lost', 'corrupted', 'unnamed', 'trainings that differ', 'left over')))

if __name__=='__main__': sys.exit(main())
