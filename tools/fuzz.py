"""Bytes turned, cut, swapped and put in, in files of every kind, in stores and in folders of models: each is read in a
process of its own, and the answer must be a recording (or a model) or one clear line, within ten seconds and in bounded memory.

    python tools/fuzz.py --minutes 30 --log fuzz.tsv            # goes on where the log ends
    python tools/fuzz.py --seeds 1 --examples 5                  # a taste
    python tools/fuzz.py --target npz --seeds 1 --first-seed 7   # the same bytes again"""
import argparse
import csv
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

root = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(root), str(root/'tests')]

import hostile  # noqa: E402
from hypothesis import HealthCheck, Phase, given, seed, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

columns = 'target','seed','examples','accepted','refused','faults','seconds','most_mb','first_fault'

def text_table(d):
    hostile.text(d, '\t'.join(hostile.names)+'\n'+'\n'.join('\t'.join(f'{v:.2f}' for v in r) for r in hostile.series()))
    return d/'sub-1_timeseries.tsv'

def saved(d, name, save):
    save(d/name)
    return d/name

def people(d):
    words = 'subject\tage\tsex\tscore\n'+''.join(f's{i}\t{20+i}\t{"MF"[i%2]}\t{i*.5}\n' for i in range(9))
    return hostile.text(d, words, 'people.tsv')

def matlab(d):
    import scipy.io
    return saved(d, 'sub-1.mat', lambda f: scipy.io.savemat(f, dict(x=hostile.series(), TR=2.), do_compression=True))

def hdf5(d):
    how = dict(data=hostile.series(), chunks=(30, 12), compression='gzip')
    return hostile.hdf5(d, lambda h,_: h.create_dataset('x', **how))

def afni(d):
    f = hostile.afni(d/'sub-1_bold+tlrc.HEAD')
    x = np.random.default_rng(0).normal(1000, 10, 23*28*24*20).astype('<f4')
    f.with_suffix('.BRIK').write_bytes(x.tobytes())
    return f

def store(d):
    from brainlm.recordings import Recording, RecordingStore
    s = RecordingStore.create(d/'store', hostile.cubes(d).parcellation)
    s.extend(Recording(hostile.series(60, i), 2., f's{i}', provenance='simulated') for i in range(3))
    return d/'store'

def model(d):
    from brainlm.model import BrainLM, preset
    from brainlm.recordings import RecordingStore
    from brainlm.scaling import RobustScaler
    s = RecordingStore(store(d))
    size = dict(width=8, heads=1, mlp=8, layers=1, decoder_width=8, decoder_heads=1, decoder_mlp=8, decoder_layers=1)
    m = BrainLM(preset('tiny', n_parcels=12, **size), s.parcellation, RobustScaler().fit(s, rows='all'))
    m.save_pretrained(d/'m')
    return d/'m'

good = dict(npy=lambda d: saved(d, 'sub-1.npy', lambda f: np.save(f, hostile.series())),
            npz=lambda d: saved(d, 'sub-1.npz', lambda f: np.savez_compressed(f, x=hostile.series(), tr=2.)),
            nifti=lambda d: hostile.volume(d/'sub-1_bold.nii', 12),
            nifti_gz=lambda d: hostile.volume(d/'sub-1_bold.nii.gz', 12),
            cifti=lambda d: hostile.cifti(d/'sub-1_bold.dtseries.nii'), gifti=hostile.gifti,
            afni=afni, matlab=matlab, text=text_table, people=people,
            hdf5=hdf5,
            json=lambda d: hostile.sidecar(d, '{"RepetitionTime": 2.0, "TaskName": "rest"}'),
            arrow=hostile.arrow, store=store, model=model)

def part_to_change(target, path, which):
    "The file of a folder that is changed"
    if target=='json': return path.with_suffix('.json')
    if path.is_file(): return path
    files = sorted(f for f in path.rglob('*') if f.is_file())
    return files[which % len(files)]

def changed(data, changes):
    "Bytes after the changes"
    data = bytearray(data)
    for where,kind,what in changes:
        at = int(where*len(data))
        if kind=='turn' and data: data[min(at, len(data)-1)] ^= what[0] or 1
        if kind=='put': data[at:at] = what
        if kind=='over': data[at:at+len(what)] = what
        if kind=='cut': del data[at:at+what[0]*16]
        if kind=='end': del data[at:]
        if kind=='twice': data[at:at] = data[at:at+what[0]]
    return bytes(data)

numbers = [b'\xff'*4, b'\xff'*8, b'\0'*8, b'\x7f'+b'\xff'*3, (2**31-1).to_bytes(4, 'little'), (2**62).to_bytes(8, 'little'),
           b'9999999999', b'-1', b'nan', b'1e999', b'"', b'<', b'{'*50, b'\n'*20]
change = st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from(('turn','put','over','cut','end','twice')),
                   st.one_of(st.sampled_from(numbers), st.binary(min_size=1, max_size=8)))
near = st.tuples(st.floats(0, .1), st.sampled_from(('turn','over','put')),
                 st.one_of(st.sampled_from(numbers), st.binary(min_size=1, max_size=8)))

def read(target, path, atlas):
    "What somebody would do with it"
    if target=='store':
        from brainlm.recordings import RecordingStore
        s = RecordingStore(path)
        return [s.read(i) for i in range(len(s))],s.parcellation,s.table
    if target=='model':
        from brainlm.model import BrainLM
        return BrainLM.from_pretrained(path)
    if target=='people':
        from brainlm.people import read_people
        return read_people(path)
    from brainlm.preprocessing import read_recording
    from brainlm.readers import find_sources
    if target=='arrow': return [read_recording(s, atlas, tr_s=2.) for s in find_sources(path)]
    return read_recording(path, atlas, tr_s=2. if target in ('npy','text','arrow') else None)

def answer(target, path, atlas, limit_mb=400):
    "'accepted', 'refused' or a fault, and the memory that it took, from a process of its own"
    r,w = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(r)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for sig in (signal.SIGALRM, signal.SIGPROF): signal.signal(sig, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, 10)                                # seconds of computing
        signal.alarm(200)                                                       # and of waiting, on a busy machine
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                read(target, path, atlas)
            said = 'accepted'
        except (ValueError, TypeError, OSError) as e:
            words = str(e)
            own = type(e).__module__.startswith('brainlm') or type(e) in (ValueError, TypeError, FileNotFoundError)
            named = path.name in words or path.stem in words or str(path.parent) in words
            said = 'refused' if own and words and len(words)<2000 and named else f'fault {type(e).__name__}: {words[:150]!r}'
        except BaseException as e: said = f'fault {type(e).__name__}: {str(e)[:150]!r}'
        mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss-before)//1000
        os.write(w, json.dumps((said if mb<=limit_mb else f'fault memory {mb} MB', mb)).encode())
        os._exit(0)
    os.close(w)
    with os.fdopen(r, 'rb') as f: line = f.read()
    status = os.waitpid(pid, 0)[1]
    if line: return json.loads(line)
    return ('fault hang' if os.WTERMSIG(status) in (signal.SIGALRM, signal.SIGPROF) else f'fault died of signal {os.WTERMSIG(status)}'),0

def one_seed(target, n, examples, top, keep):
    "A row of the log"
    d = top/f'{target}-{n}'
    shutil.rmtree(d, ignore_errors=True)
    d.mkdir(parents=True)
    atlas,path = hostile.cubes(d),good[target](d)
    whole = {f: f.read_bytes() for f in d.rglob('*') if f.is_file()}
    row = dict(target=target, seed=n, examples=0, accepted=0, refused=0, faults=0, most_mb=0, first_fault='')
    start,first = time.time(),answer(target, path, atlas)[0]
    assert first=='accepted', f'{target}: the whole file is not read: {first}'

    @seed(n)
    @settings(max_examples=examples, database=None, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(st.lists(st.one_of(change, near), min_size=1, max_size=4), st.integers(0, 30))
    def go(changes, which):
        f = part_to_change(target, path, which)
        f.write_bytes(changed(whole[f], changes))
        said,mb = answer(target, path, atlas)
        f.write_bytes(whole[f])
        row['examples'] += 1
        row['most_mb'] = max(row['most_mb'], mb)
        kind = said if said in ('accepted','refused') else 'faults'
        row[kind] += 1
        if kind=='faults':
            row['first_fault'] = row['first_fault'] or f'{f.name}: {said}'
            if keep: print(target, n, f.name, changes, said, flush=True)
    go()
    row['seconds'] = round(time.time()-start)
    shutil.rmtree(d, ignore_errors=True)
    return row

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--minutes', type=float, help='of wall clock; default: --seeds of each target')
    p.add_argument('--seeds', type=int, default=1)
    p.add_argument('--first-seed', type=int, default=0)
    p.add_argument('--examples', type=int, default=50, help='for each seed')
    p.add_argument('--target', nargs='+', default=list(good), choices=list(good))
    p.add_argument('--log', type=Path)
    p.add_argument('--quiet', action='store_true')
    a = p.parse_args()
    done = set()
    if a.log and a.log.is_file():
        with open(a.log, newline='') as f: done = {(r['target'], int(r['seed'])) for r in csv.DictReader(f, delimiter='\t')}
    end,n,faults = time.time()+60*a.minutes if a.minutes else None,a.first_seed,0
    import brainlm.model  # noqa: F401 (before the forks)
    import brainlm.preprocessing  # noqa: F401
    with tempfile.TemporaryDirectory() as top:
        while (time.time()<end if end else n<a.first_seed+a.seeds):
            for target in a.target:
                if (target, n) in done or (end and time.time()>end): continue
                row = one_seed(target, n, a.examples, Path(top), not a.quiet)
                faults += row['faults']
                print(' '.join(f'{k} {row[k]}' for k in columns[:-1]), row['first_fault'], flush=True)
                if a.log:
                    new = not a.log.is_file()
                    with open(a.log, 'a', newline='') as f:
                        o = csv.DictWriter(f, columns, delimiter='\t')
                        if new: o.writeheader()
                        o.writerow(row)
            n += 1
    return int(faults>0)

if __name__=='__main__': sys.exit(main())
