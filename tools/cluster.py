"What page 21b says of clusters, measured: `python tools/cluster.py stream|equal` (docs in `--help`)"
import argparse
import multiprocessing
import os
import platform
import resource
import signal
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import torch

tables = Path(__file__).parent/'cluster_tables'

def keep(name, rows):
    "Write a table, with where and when it was made"
    t = pd.DataFrame(rows)
    made = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {date.today():%Y-%m-%d}"
    t.assign(made=made).to_csv(tables/f'{name}.tsv', sep='\t', index=False)
    print(t.to_string())

def peak_gb(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*1024/1e9

def recording(i, atlas, frames):
    "A simulated recording: noise and a mean"
    from brainlm.recordings import Recording
    x = np.random.default_rng(i).standard_normal((frames, len(atlas)), 'float32')
    return Recording(10*x+1000, .735, f's{i:06}', provenance='simulated')

def listed_store(folder, atlas, n, frames):
    "A store whose table lists `n` recordings; there are no signals but those of the first"
    import pyarrow as pa

    from brainlm.recordings import RecordingStore
    store = RecordingStore.create(folder, atlas)
    store.extend([recording(0, atlas, frames)])
    t, at = store.table.iloc[np.zeros(n, int)].reset_index(drop=True), np.arange(n)
    t = t.assign(subject=[f's{i:06}' for i in at*61//77], start=at*frames, run=[f'{i}' for i in at], signal_hash=[f'{i:032x}' for i in at])
    store._codes = np.zeros(-(-n*frames//store._meta['chunk_rows']), '<i8')
    with store.writer(): store.put_table(pa.Table.from_pandas(t, store._pa.schema, preserve_index=False))
    return store

def real_store(folder, atlas, n, frames):
    "A store of `n` recordings; the one that is there, where it has as many"
    from brainlm.recordings import RecordingStore
    store = RecordingStore.create(folder, atlas, exist_ok=True)
    for a in range(len(store), n, 100): store.extend(recording(i, atlas, frames) for i in range(a, min(a+100, n)))
    return store

def forget(store):
    "Drop the files of a store from the cache of the system"
    os.sync()
    for f in (Path(store.url)/'bold').iterdir():
        fd = os.open(f, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)

def waiting(store, scaler, preset, steps, batch, ahead, cold):
    "Seconds of a step, and the share of it in which no batch was there"
    from brainlm.model import preset as shape
    from brainlm.pretraining import Timed, Training, pretrain_learner
    with tempfile.TemporaryDirectory() as tmp:
        learn = pretrain_learner(store, shape(preset, n_parcels=store.n_parcels), f'{tmp}/run', scaler=scaler, training=Training(batch, device='cpu', progress=False))
        learn.dls.train.ahead = ahead
        if cold: forget(store)
        timed, start = Timed(steps-1), time.perf_counter()
        with learn.removed_cbs([learn.run_folder]), learn.added_cbs(timed): learn.fit(1, 1e-4)
        took = time.perf_counter()-start
    return np.median(timed.seconds), learn.dls.train.waited/took

def reading(store, scaler, batch, batches, workers, ahead, cold):
    "Windows that are read in a second while nobody trains, in the first epoch, which reads whole recordings"
    from brainlm.streaming import window_dls
    from brainlm.windows import RandomWindows
    loader = window_dls(RandomWindows(store, scaler), None, batch, workers, 'cpu').train
    loader.ahead = ahead
    if cold: forget(store)
    start = time.perf_counter()
    for i,_ in enumerate(loader):
        if i==batches-1: break
    return batch*batches/(time.perf_counter()-start)

def stream(a):
    "Opening and splitting a long table; steps that wait for data"
    from brainlm.atlas import load_parcellation
    from brainlm.recordings import RecordingStore
    from brainlm.scaling import RobustScaler
    from brainlm.windows import RandomWindows
    torch.set_num_threads(1)
    atlas, rows, many = load_parcellation('a424'), [], a.recordings
    def timed(what, f):
        before, start = peak_gb(), time.perf_counter()
        got = f()
        took = time.perf_counter()-start
        rows.append(dict(what=what, seconds=f'{took:.2f}', gb=f'{peak_gb()-before:.2f}', waiting=''))
        return got
    with tempfile.TemporaryDirectory() as tmp:
        maker = multiprocessing.get_context('fork').Process(target=listed_store, args=(f'{tmp}/listed', atlas, many, a.frames))
        maker.start()                                                       # elsewhere, so that the peak is that of a reader
        maker.join()
        store = timed(f'open a store of {many:,} recordings', lambda: RecordingStore(f'{tmp}/listed'))
        split = timed('split it by subject', store.split)
        scaler = RobustScaler().fit(real_store(f'{tmp}/few', atlas, 8, a.frames), rows='all')
        timed('draw the windows of an epoch', lambda: RandomWindows(store, scaler, split.train))
    if a.opening: return keep('opening', rows)
    few = timed(f'write {many//50:,} recordings', lambda: real_store(a.store, atlas, many//50, a.frames))
    for cold in (False, True):
        for ahead in (0, 2):
            s, share = waiting(few, scaler, a.preset, a.steps, a.batch_size, ahead, cold)
            files = 'dropped from the cache' if cold else 'in the cache'
            rows.append(dict(what=f'step, {a.preset}, batch {a.batch_size}, files {files}, {ahead} batches ahead', seconds=f'{s:.2f}', gb='', waiting=f'{share:.1%}'))
        for workers in (0, 2):
            rate = reading(few, scaler, a.batch_size, 2*a.steps, workers, 2, cold)
            who = f'{workers} processes' if workers else '4 threads'
            rows.append(dict(what=f'read by {who}, files {files}: {rate:.0f} windows/s', seconds='', gb='', waiting=''))
    keep('stream', rows)

def people_store(folder, n=16):
    "Simulated people of ten parcels, with an age"
    from brainlm.atlas import Parcellation, load_parcellation
    from brainlm.recordings import Recording, RecordingStore
    rng, store = np.random.default_rng(0), RecordingStore.create(folder, Parcellation('ten', load_parcellation('aal2').table.iloc[:10]))
    def waves(i):
        x = rng.standard_normal((240, 2)).cumsum(0)@rng.standard_normal((2, 10))+rng.standard_normal((240, 10))
        return Recording(x.astype('float32'), 1., f's{i:02}', covariates=dict(age=20.+3*i), provenance='simulated')
    store.extend(waves(i) for i in range(n))
    return store

def untrained(store):
    "A model with random weights"
    from brainlm.model import BrainLM, preset
    from brainlm.scaling import RobustScaler
    torch.manual_seed(0)
    model = BrainLM(preset('nano', n_parcels=store.n_parcels), store.parcellation, RobustScaler().fit(store, store.split()))
    model.card = dict(untrained=True)
    return model

def dies_in(epoch):
    "The second process is killed in an epoch"
    from brainlm.pretraining import RunFolder, company
    after = RunFolder.after_train
    def killed(self):
        if self.epoch==epoch and company().rank==1: os.kill(os.getpid(), signal.SIGKILL)
        return after(self)
    RunFolder.after_train = killed

def reported(kind, store, top, name, kill=None, **how):
    "A report of fine-tuning or forecasting; only the first process writes where it is to be"
    from brainlm import results
    from brainlm.pretraining import Training, company
    if kill is not None: dies_in(kill)
    out = f'{top}/{name}' + (f'-{company().rank}' if company().rank else '')
    how |= dict(epochs=2, training=Training(4, device='cpu', progress=False))
    if kind=='finetune': results.finetune_report(store, untrained(store), 'age', out, unfreeze='all', pooling='cls', rivals=['mean'], **how)
    else: results.forecast_report(store, untrained(store), out, rivals=['persistence'], **how)

def mixed(stores, top, name, kill=None, resume=False):
    "A training on two data sets"
    from brainlm.mixture import Part, mixture_learner
    from brainlm.model import BrainLMConfig
    from brainlm.pretraining import Training
    if kill is not None: dies_in(kill)
    config = BrainLMConfig(n_parcels=1, n_time=80, width=16, layers=2, heads=2, mlp=32, decoder_width=16, decoder_layers=2, decoder_heads=2, decoder_mlp=32,
                           parcel_embedding=False)
    parts = {k: Part(o) for k,o in stores.items()}
    mixture_learner(parts, config, f'{top}/{name}', training=Training(4, device='cpu', progress=False), context=0.).pretrain(3, resume=resume)

def apart(a, b):
    "Largest differences of the losses and of the last weights of two runs"
    from safetensors.torch import load_file
    logs = [pd.read_csv(next(Path(o).rglob('log.csv')))[['train_loss','valid_loss']] for o in (a, b)]
    files = [sorted(o.relative_to(a) for o in Path(a).rglob('*.safetensors') if 'last' in o.parts)]
    weights = [(load_file(Path(a)/o), load_file(Path(b)/o)) for o in files[0]]
    far = max(float((x[k].float()-y[k].float()).abs().max()) for x,y in weights for k in x)
    return dict(losses=f'{(logs[0]-logs[1]).abs().max().max():.1e}', weights=f'{far:.1e}')

def equal(a):
    "What must be equal: one process and two, killed and resumed, one machine and a Dask cluster"
    from functools import partial

    from brainlm.processes import forked
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as top:
        store, more = people_store(f'{top}/store'), people_store(f'{top}/more', 9)
        for kind in ('finetune', 'forecast'):
            run = partial(reported, kind, store, top)
            run(f'{kind}1')
            print([code for code,_ in forked(partial(run, f'{kind}2'))])
            rows.append(dict(what=f'{kind}: two processes beside one', **apart(f'{top}/{kind}1', f'{top}/{kind}2')))
            print(forked(partial(run, f'{kind}3', kill=1)))
            print([code for code,_ in forked(partial(run, f'{kind}3', resume=True))])
            rows.append(dict(what=f'{kind}: killed and taken up beside two', **apart(f'{top}/{kind}2', f'{top}/{kind}3')))
        both = partial(mixed, dict(a=store, b=more), top)
        for name,kw in (('m1', {}), ('m2', dict(kill=2)), ('m2', dict(resume=True))): print([code for code,_ in forked(partial(both, name, **kw))])
        rows.append(dict(what='two data sets: killed and taken up beside two', **apart(f'{top}/m1', f'{top}/m2')))
        rows += scheduled(store, top)
    keep('equal', rows)

def scheduled(store, top):
    "One machine beside a Dask cluster of two processes"
    from brainlm.clinical import nested_cv, recordings_array
    from brainlm.embedding import embed_store
    from brainlm.readouts import readouts
    from brainlm.spreading import dask_client, on_scheduler
    from brainlm.stats import contrast, spins
    who, age = store.table['subject'].to_numpy(), store.table['age'].to_numpy()
    X = recordings_array(store, untrained(store).scaler)
    def models(): return {k: o for k,o in readouts().items() if k in ('mean', 'ridge on FC (correlation)')}
    def results(name):
        os.makedirs(f'{top}/{name}')
        reported('finetune', store, top, f'{name}/folds', folds=2)
        return {'embed, 16 recordings': embed_store(store, untrained(store), f'{top}/{name}/z.parquet', progress=False),
                'finetune, two folds': pd.read_csv(f'{top}/{name}/folds/results.csv'),
                'nested_cv, five folds': nested_cv(X, age, who, models), 'spins, 1,000': pd.DataFrame(spins(store.parcellation, 1000)),
                'permutations, 1,000': contrast(np.random.default_rng(0).standard_normal((16, 3)), age>40, who, 'xyz', n_permutations=1000)}
    one = results('one')
    with dask_client(2) as client, on_scheduler(client.scheduler.address): two = results('two')
    def far(a, b): return max([float(np.nanmax(np.abs(x))) for c in a.select_dtypes('number') if len(x := a[c].to_numpy(float)-b[c].to_numpy(float)) and np.isfinite(x).any()])
    return [dict(what=f'{k}: --scheduler, two workers, beside one machine', losses='', weights='', results=f'{far(one[k], two[k]):.1e}') for k in one]

def main():
    p = argparse.ArgumentParser(description=__doc__)
    sub = p.add_subparsers(dest='command', required=True)
    o = sub.add_parser('stream', help=stream.__doc__)
    o.add_argument('--store', default='/tmp/brainlm_stream', help='folder of the store that is written once')
    for k,v in (('recordings', 77_298), ('frames', 490), ('steps', 10), ('batch_size', 8)): o.add_argument(f'--{k}', type=int, default=v)
    o.add_argument('--preset', default='nano')
    o.add_argument('--opening', action='store_true', help='only what is done with the table')
    o.set_defaults(run=stream)
    sub.add_parser('equal', help=equal.__doc__).set_defaults(run=equal)
    a = p.parse_args()
    a.run(a)

if __name__=='__main__': main()
