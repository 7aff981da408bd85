"""Make `brainlm/models/brainlm-small` again, from public data: one network, three atlases.

Every step is kept in the work folder, so that an interrupted run goes on: stores, priors, training (to the last whole epoch), scores.
Of each data set a list of people is left out, by a rule that is written in the card: the eight test people of the notebooks, the three of
the demo, a fifth of the others. The model is scored on them, beside the same prior without the network. About 25 CPU minutes.

    python tools/make_small.py                 # all of it
    python tools/make_small.py --plan          # what is there and what is missing
    python tools/make_small.py --work FOLDER   # where the steps are kept (default runs/small)
"""
import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.callback.core import Callback, CancelFitException

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root))

from brainlm.atlas import load_parcellation
from brainlm.atlases import save_atlases
from brainlm.basics import write_whole
from brainlm.datasets import DATASETS, fetch_hcp_rest, fetch_hcp_sample, fetch_psychosis
from brainlm.metrics import evaluate, scaled_recordings
from brainlm.mixture import Part, beside_prior, mixture_learner, network_gain
from brainlm.model import BrainLM, preset
from brainlm.pretraining import Training
from brainlm.prior import GaussianPrior, SpaceTimePrior
from brainlm.readouts import PersonEmbedding
from brainlm.recordings import Recording, RecordingStore, read_parquet, refuse_seen
from brainlm.scaling import RobustScaler
from brainlm.small import keep_person
from brainlm.windows import TiledWindows

name, context = 'brainlm-small', .5
planned, stop, lr = 8, 2, 2e-3          # first: two passes of a schedule of eight, so that the rate is near its top
n_cool, share, cool_lr = 4, .25, 1.5e-3 # then: four runs over a quarter of the windows each, down to nothing, whose weights are averaged
sizes = dict(width=64, layers=2, heads=2, mlp=192, decoder_width=64, decoder_layers=2, decoder_heads=2, decoder_mlp=192)
# data set: who is left out, and on how many training people's windows the weights of its prior are chosen
left_out = dict(hcp_rest=dict(valid=0., test=8/30, seed=1), hcp_sample=dict(valid=0., test=3/7, seed=8), psychosis=dict(valid=0., test=.2, seed=1))
trials = dict(hcp_rest=12, hcp_sample=12, psychosis=6)
words = dict(hcp_rest='HCP rest, 360 areas', hcp_sample='HCP rest, 94 regions', psychosis='first episode of psychosis, 419 parcels')
# ABIDE, depression and heat pain may be read, but nothing is made from them that is shipped

def simulated(kind, n_people=10, n_time=120):
    "Recordings in place of a data set, for a trial of this script"
    rng = np.random.default_rng(len(kind))
    p = load_parcellation(dict(hcp_rest='glasser360', hcp_sample='aal2', psychosis='schaefer419x7')[kind])
    p = type(p)(p.name, p.table.iloc[:8+len(kind)])
    waves = rng.standard_normal((n_people, n_time, 3)).cumsum(1)
    x = waves@rng.standard_normal((3, len(p))) + 3*rng.standard_normal((n_people, n_time, len(p)))
    return [Recording(o.astype('float32'), .72, f'{kind}{i}', provenance='simulated') for i,o in enumerate(x)], p

def fetched(kind):
    "Recordings of a data set, and its parcellation"
    if kind=='hcp_rest': return fetch_hcp_rest(), load_parcellation('glasser360')
    if kind=='hcp_sample': return fetch_hcp_sample(), load_parcellation('aal2')
    d = fetch_psychosis()
    return d.recordings, d.parcellation

def store_of(a, kind):
    "The store of a data set, made where it is not there"
    folder = a.work/'stores'/kind
    if (folder/'done').exists(): return RecordingStore(folder)
    recordings, parcellation = (simulated if a.data=='simulated' else fetched)(kind)
    store = RecordingStore.create(folder, parcellation)
    store.extend(recordings)
    (folder/'done').touch()
    return store

def part_of(a, kind):
    "A data set with its prior, fitted where it is not there"
    store, file = store_of(a, kind), a.work/'priors'/f'{kind}.safetensors'
    split = store.split(**left_out[kind])
    if not file.exists():
        prior, scaler = SpaceTimePrior(store.n_parcels), RobustScaler().fit(store, split)
        prior.fit(scaled_recordings(store, scaler, split), store.table['tr_s'].median(), n_trials=trials[kind])
        file.parent.mkdir(parents=True, exist_ok=True)
        prior.save(file)
    return Part(store, split, prior=GaussianPrior.load(file))

def config_of(a):
    "The shape of the network: no vectors for parcels, linear coordinates"
    shape = dict(n_time=60, **{k: min(v, 16) for k,v in sizes.items()}) if a.data=='simulated' else sizes
    return preset('tiny', prior='space-time', parcel_embedding=False, xyz='linear', **shape)

class StopAfter(Callback):
    "End a training after so many epochs, wherever its schedule is"
    order = 110                                                             # after the run folder has its checkpoint
    def __init__(self, n): self.n = n
    def after_epoch(self):
        if self.epoch+1>=self.n: raise CancelFitException

def learner(a, parts, stage, number):
    how = Training(batch_size=1, seed=number, device='cpu', progress=a.progress)
    return mixture_learner(parts, config_of(a), a.work/stage, context=context, training=how)

def cooled(a, parts, warm, number):
    "Weights and log of one of the second runs, which begins with the weights of the first"
    learn = learner(a, {k: replace(p, weight=share) for k,p in parts.items()}, f'cool{number}', number)
    learn.model.load_state_dict(warm)
    log = learn.pretrain(1, lr=cool_lr, resume=True)
    return learn, log

def trained(a, parts):
    "The network on each data set: the mean of the weights of the second runs. And the log of all runs."
    warm, file = learner(a, parts, 'warm', 0), a.work/'warm'/'log.csv'
    warm.add_cb(StopAfter(stop))
    if not file.exists() or len(pd.read_csv(file))<stop: warm.pretrain(planned, lr=lr, resume=True)
    state = torch.load(a.work/'warm'/'checkpoint.pt', weights_only=True)
    runs, logs = zip(*[cooled(a, parts, state['model'], i) for i in range(1, n_cool+1)], strict=True)
    mixture, states = runs[0].model, [o.model.state_dict() for o in runs]
    mixture.load_state_dict({k: sum(o[k].double() for o in states).div(n_cool).to(v.dtype) for k,v in states[0].items()})
    folder = mixture.save_pretrained(a.work/'mean', parts=runs[0].run_folder.card['parts'])
    models = {k: BrainLM.from_pretrained(folder, p.store.parcellation.name) for k,p in parts.items()}
    return models, pd.concat([pd.DataFrame(state['log']), *logs])

def with_person(models, parts):
    "Each model with what its training people have in common"
    for kind,m in models.items():
        rows = parts[kind].split.train
        keep_person(m, PersonEmbedding().fit([parts[kind].store.read(i) for i in rows]))

def scores_of(a, kind, model, part):
    "Scores on the people who were left out, kept"
    file = a.work/'scores'/f'{kind}.parquet'
    if file.exists(): return read_parquet(file)
    refuse_seen(model, part.store, part.split.subjects['test'])
    size = dict(n_time=model.config.n_time, patch_size=model.config.patch_size)
    windows = TiledWindows(part.store, model.scaler, part.split.test, **size)
    first = ~pd.Series(windows.subjects).duplicated().to_numpy()            # one window a person
    windows.item, windows.start = windows.item[first], windows.start[first]
    stats = evaluate(beside_prior(model), windows, batch_size=4)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, stats.to_parquet)
    return stats

def score_rows(kind, part, gain):
    "Rows for the card"
    who = dict(data=words[kind], left_out=int(gain['n'].iloc[0]), atlas=part.store.parcellation.name)
    return [who | {k: round(v, 4) if isinstance(v, float) else v for k,v in o.items()} for o in gain.to_dict('records')]

def card_text(scores, log, models, size):
    "What people should read first"
    t = pd.DataFrame(scores)
    t['gain over the same prior'] = [f"{o.gain:+.4f} [{o.low:+.4f}, {o.high:+.4f}], {o.says}" for o in t.itertuples()]
    t = t[['data', 'model', 'mask_ratio', 'r2', 'prior', 'gain over the same prior', 'n']]
    t = t.rename(columns=dict(prior='same prior, no network', r2='R²', mask_ratio='hidden', n='people'))
    table = '\n'.join('| '+' | '.join(map(str, o))+' |' for o in [list(t), ['---']*t.shape[1], *t.values.tolist()])
    n = sum(p.numel() for p in next(iter(models.values())).parameters())
    data = '\n'.join(f'- {words[k]} (`{DATASETS[k].name}`): {DATASETS[k].title}. Terms: {DATASETS[k].licence}' for k in models)
    return (root/'tools'/'small_card.md').read_text(encoding='utf-8').format(
        data=data, table=table, weights=f'{n:,}', passes=stop, runs=n_cool, cpu=f"{log['cpu_seconds'].sum()/60:.0f}", mb=f'{size:.1f}',
        atlases=', '.join(f'`{m.parcellation.name}`' for m in models.values()))

def ship(a, models, log, scores):
    "Write the folder of the package"
    by_atlas = {m.parcellation.name: m for m in models.values()}
    passes = stop + n_cool*share
    card = dict(name=name, scores=scores, cpu_minutes=round(log['cpu_seconds'].sum()/60, 1), passes=passes, personal_data=True,
                person_embedding='tells people apart: vectors made with it are personal data')
    folder = save_atlases(by_atlas, a.out, **card)
    size = sum(f.stat().st_size for f in folder.rglob('*') if f.is_file())/1e6
    write_whole(folder/'README.md', card_text(scores, log, models, size))
    write_whole(folder/'HCP_TERMS.txt', (root/'tools'/'hcp_terms.txt').read_text(encoding='utf-8'))
    return folder, size

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--plan', action='store_true', help='say what is there and what is missing, and stop')
    p.add_argument('--work', type=Path, default=root/'runs'/'small', help='where the steps are kept')
    p.add_argument('--out', type=Path, default=root/'brainlm'/'models'/name, help='folder of the model')
    p.add_argument('--progress', action='store_true', help='bars while training')
    p.add_argument('--data', choices=['public', 'simulated'], default='public', help=argparse.SUPPRESS)
    a = p.parse_args(argv)
    if a.plan:
        steps = [f'stores/{k}/done' for k in left_out]+[f'priors/{k}.safetensors' for k in left_out]
        steps += ['warm/checkpoint.pt', *(f'cool{i}/checkpoint.pt' for i in range(1, n_cool+1))]+[f'scores/{k}.parquet' for k in left_out]
        return print('\n'.join(f"{'there' if (a.work/o).exists() else 'missing':8} {o}" for o in steps))
    parts = {k: part_of(a, k) for k in left_out}
    models, log = trained(a, parts)
    with_person(models, parts)
    gains = {k: network_gain(scores_of(a, k, m, parts[k])) for k,m in models.items()}
    scores = [o for k,g in gains.items() for o in score_rows(k, parts[k], g)]
    folder, size = ship(a, models, log, scores)
    print(pd.DataFrame(scores).to_string(index=False))
    print(f'{folder}: {size:.1f} MB')

if __name__=='__main__': main()
