"""Real people, each judged once by a model that never saw them: HCP rest in five folds, with three seeds.

    python tools/hcp_folds.py --plan                           # what is there and what is missing; runs nothing
    python tools/hcp_folds.py --fold 0 --seed 0 --budget 15    # 15 CPU minutes; call it again to go on
    python tools/hcp_folds.py --table                          # from what is there: nbs/results/hcp_folds.tsv

A piece is one fold with one seed: pretraining, then hidden stretches beside all `imputers`, forecasts beside the quick
`forecasters`, networks beside functional connectivity. What it keeps in tools/hcp_tables is small (sums by person); models
stay in runs/. Rivals are taken from the registries: one that is added there is judged here, in pieces that are done anew."""
import argparse
import json
import os
import time
from pathlib import Path

for k in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS'): os.environ.setdefault(k, '1')

import numpy as np
import pandas as pd
import torch
from fastai.callback.core import Callback, CancelFitException

from brainlm.atlas import load_parcellation
from brainlm.baselines import NeuralForecaster, forecasters, future_net
from brainlm.basics import write_whole
from brainlm.clinical import outer_folds
from brainlm.datasets import fetch_hcp_rest
from brainlm.evidence import keep_results, result_rows
from brainlm.forecasting import forecast_stats, forecast_windows
from brainlm.metrics import bootstrap, evaluate, masked_rivals, model_predictor, score_verdicts, sum_columns
from brainlm.model import BrainLM, GaussianPrior, preset
from brainlm.networks import (
    attention_matrix,
    attention_profiles,
    classify_parcels,
    fc_profiles,
    parcel_pairs,
    place_profiles,
)
from brainlm.pretraining import Training, pretrain_learner, scaled_recordings
from brainlm.recordings import Recording, RecordingStore
from brainlm.stats import group_interval, verdicts
from brainlm.windows import TiledWindows

root = Path(__file__).resolve().parents[1]
folds, seeds, ratios = 5, 3, (.2, .5, .75)
bands = {'steps 1 to 20': range(1, 21), 'step 1': [1], 'step 5': [5], 'step 20': [20]}
ours, control = 'BrainLM', 'BrainLM, not trained'

# Data

def made_up(n, rng):
    "Recordings with eight shared sources, for a test of this script"
    mix = rng.standard_normal((8, 94))
    for i in range(n):
        x = rng.standard_normal((400, 8)).cumsum(0)@mix*.1+rng.standard_normal((400, 94))
        yield Recording(x.astype('float32'), .72, f's{i:02}', task='rest', provenance='simulated')

def the_store(a):
    "The recordings, ingested once"
    folder = Path(a.runs)/'store'
    if folder.exists(): return RecordingStore(folder)
    if (mirror := root.parent/'shared'/'mirror').is_dir(): os.environ.setdefault('BRAINLM_MIRROR', str(mirror))
    real = a.data=='hcp'
    store = RecordingStore.create(folder, load_parcellation('glasser360' if real else 'aal2'))
    store.extend(fetch_hcp_rest() if real else made_up(10, np.random.default_rng(0)))
    return store

def sides(store, fold):
    "A word for each recording: one fold to judge on, all others to learn from"
    return np.where(outer_folds(store.table['subject'], n_folds=folds)==fold, 'test', 'train')

# Pieces

class OutOfTime(Callback):
    "End the training after the epoch in which the CPU minutes are used up"
    order = 95                                                              # after the run folder has its checkpoint
    def __init__(self, until): self.until = until
    def after_epoch(self):
        if time.process_time()>self.until: raise CancelFitException()

def trained(a, store, fold, seed, until):
    "The pretrained model of a piece and the same one before it learned; None where time was up"
    words, config = sides(store, fold), preset(a.preset, n_parcels=store.n_parcels, prior=a.prior, **a.size)
    folder = Path(a.runs)/f'fold{fold}-seed{seed}'
    learn = pretrain_learner(store, config, folder, words, training=Training(seed=seed, progress=False))
    fresh = BrainLM(config, store.parcellation, learn.model.scaler)
    fresh.load_state_dict(learn.model.state_dict())
    learn.add_cb(OutOfTime(until))
    if (folder/'last').exists(): return BrainLM.from_pretrained(folder/'last'), fresh
    done = len(learn.pretrain(a.epochs, resume=True))
    print(f'fold {fold}, seed {seed}: {done} of {a.epochs} epochs', flush=True)
    return (learn.model, fresh) if done>=a.epochs else None

def summed(stats, by):
    "Sums by person"
    sums = stats.groupby([*by, 'subject'], observed=True, sort=False)[sum_columns].sum().reset_index()
    return sums.assign(n_windows=stats['n_windows'].max())

def reconstruction(a, store, fold, model, fresh):
    "Hidden stretches, beside every rival of the registry"
    words = sides(store, fold)
    prior = GaussianPrior(store.n_parcels)
    prior.fit(scaled_recordings(store, model.scaler, words))
    those = masked_rivals(prior) | {ours: model_predictor(model), control: model_predictor(fresh)}
    return summed(evaluate(those, TiledWindows(store, model.scaler, words=='test'), ratios=ratios), ['model', 'mask_ratio'])

def forecasting(a, store, fold, model, fresh):
    "The 20 frames to come, beside the quick rivals of the registry"
    words = sides(store, fold)
    train, test = (forecast_windows(store, model.scaler, words==s) for s in ('train', 'test'))
    those = {k: forecasters.make(k, stride=20, device='cpu') for k in forecasters.quick()}
    those |= {k: NeuralForecaster(future_net(m), epochs=0, device='cpu') for k,m in ((ours, model), (control, fresh))}
    said = {k: f.fit(train.X, train.Y, train.subjects).predict(test.X) for k,f in those.items()}
    stats = forecast_stats(said, test.Y, test.subjects)
    parts = [summed(stats[stats['step'].isin(list(steps))], ['model']).assign(band=k) for k,steps in bands.items()]
    return pd.concat(parts)

def networks(a, store, fold, model, fresh):
    "Share of repeats in which the network of each parcel is found, from attention and without it"
    at, p = np.flatnonzero(sides(store, fold)=='test'), store.parcellation
    profiles = {ours: attention_profiles(attention_matrix(model, store, at)), 'FC': fc_profiles(store, at),
                control: attention_profiles(attention_matrix(fresh, store, at)), 'place': place_profiles(p)}
    found = {k: classify_parcels(v, p) for k,v in profiles.items()}
    right = pd.DataFrame({k: np.where(r.truth!='', (r.predicted==r.truth).mean(0), np.nan) for k,r in found.items()})
    return right.assign(people=len(at))

parts = dict(reconstruction=reconstruction, forecasting=forecasting, networks=networks)

def file_of(a, part, fold, seed): return Path(a.tables)/f'{part}-fold{fold}-seed{seed}.csv'

def missing(a):
    "Pieces and their parts that are not there yet"
    every = [(f, s) for s in (range(seeds) if a.seed is None else [a.seed]) for f in (range(folds) if a.fold is None else [a.fold])]
    return {o: lost for o in every if (lost := [p for p in parts if not file_of(a, p, *o).exists()])}

def run(a):
    "What is missing, as far as the CPU minutes go"
    torch.set_num_threads(1)
    until = time.process_time()+60*a.budget
    store = the_store(a)
    Path(a.tables).mkdir(parents=True, exist_ok=True)
    write_whole(Path(a.tables)/'how.json', {k: getattr(a, k) for k in ('data', 'preset', 'prior', 'epochs')})
    for (fold, seed), lost in missing(a).items():
        if time.process_time()>until or (both := trained(a, store, fold, seed, until)) is None: return
        for part in lost:
            if time.process_time()>until: return print(f'fold {fold}, seed {seed}: time is up before {part}')
            start = time.process_time()
            t = parts[part](a, store, fold, *both)
            write_whole(file_of(a, part, fold, seed), t.to_csv(index=False, float_format='%.8g'))
            print(f'fold {fold}, seed {seed}: {part}, {(time.process_time()-start)/60:.1f} CPU minutes', flush=True)

# The table

def there(a, part):
    "All pieces of one part, and the words for them"
    got = {o: pd.read_csv(f) for s in range(seeds) for o in ((k, s) for k in range(folds)) if (f := file_of(a, part, *o)).exists()}
    n, of = len({f for f,_ in got}), len({s for _,s in got})
    words = f"{n} of {folds} folds, {of} of {seeds} seeds"
    return got, words

def scored(stats, claim, a, task, words):
    "Rows of one task, all people and seeds pooled"
    stats = stats.groupby(['model', 'subject'], sort=False)[sum_columns+['n_windows']].sum().reset_index()
    b = bootstrap(stats, by='model').rename(columns={'r2': 'value'})
    data = f"{'HCP rest' if a.data=='hcp' else 'made up'}, {words}"
    kind = 'real' if a.data=='hcp' else 'simulated'
    return result_rows(b, score_verdicts(stats, ours), [ours], [control], kind, task=task, data=data, metric='R²', claim=claim)

def of_networks(got, a, words):
    "Rows of the networks, over pairs of mirror parcels"
    right = pd.concat(got.values()).groupby(level=0).mean()
    pairs, ok = parcel_pairs(load_parcellation('glasser360' if a.data=='hcp' else 'aal2')), right[ours].notna().to_numpy()
    at = np.unique(pairs[ok], return_inverse=True)[1]
    models = [c for c in right if c!='people']
    values = pd.DataFrame({k: [right[k][ok].mean(), *group_interval(right[k][ok].to_numpy(), pairs[ok])] for k in models}, ['value', 'low', 'high']).T
    less = {k: (right[ours]-right[k])[ok].to_numpy() for k in models if k!=ours}
    d = {k: np.bincount(at, v)*(at.max()+1)/len(at) for k,v in less.items()}
    found = verdicts(d, ours, 'accuracy', intervals={k: group_interval(v, at) for k,v in less.items()}, unit='pairs of parcels')
    people = sum(t['people'].iloc[0] for t in {f: t for (f, _), t in got.items()}.values())
    data = f"{'HCP rest' if a.data=='hcp' else 'made up'}, {people} people, {words}"
    return result_rows(values.assign(n=at.max()+1), found, [ours], [control], 'real' if a.data=='hcp' else 'simulated', 'pairs of parcels',
                       task='seven networks from attention', data=data, metric='accuracy', claim='networks')

def table(a):
    "The rows of all that is there, in a file that is made anew"
    rows = []
    got, words = there(a, 'reconstruction')
    if got:
        all_of = pd.concat(got.values())
        rows += [scored(t, 'reconstruction', a, f'hidden stretches filled in, mask {r:g}', words) for r,t in all_of.groupby('mask_ratio')]
    got, words = there(a, 'forecasting')
    if got:
        all_of = pd.concat(got.values())
        rows += [scored(all_of[all_of['band']==k], 'forecasting' if k==[*bands][0] else '', a, f'forecasts as it is, {k}', words) for k in bands]
    got, words = there(a, 'networks')
    if got: rows.append(of_networks(got, a, words))
    if not rows: return print('nothing is there yet')
    out = Path(a.out)
    out.unlink(missing_ok=True)
    how = json.loads((Path(a.tables)/'how.json').read_text())
    keep_results(out, pd.concat(rows), f"python tools/hcp_folds.py --preset {how['preset']} --prior {how['prior'] or 'none'} --epochs {how['epochs']}")
    print(pd.concat(rows).drop_duplicates(['task', 'model', 'rival']).filter(['task', 'model', 'value', 'low', 'high', 'rival', 'difference', 'says']).to_string(index=False))

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--plan', action='store_true', help='say what is missing, and stop')
    p.add_argument('--table', action='store_true', help='make the table of what is there, and stop')
    p.add_argument('--fold', type=int, choices=range(folds), help='only this one')
    p.add_argument('--seed', type=int, choices=range(seeds), help='only this one')
    p.add_argument('--budget', type=float, default=1e6, help='CPU minutes, looked at after each epoch and each part')
    p.add_argument('--epochs', type=int, default=29, help='of pretraining')
    p.add_argument('--preset', default='tiny', help='size of the model')
    p.add_argument('--prior', default='gaussian', help="what it starts from: gaussian, or none")
    p.add_argument('--size', type=json.loads, default={}, help=argparse.SUPPRESS)
    p.add_argument('--data', choices=['hcp', 'simulated'], default='hcp', help=argparse.SUPPRESS)
    p.add_argument('--runs', default=root/'runs'/'hcp_folds', help='folder of the models')
    p.add_argument('--tables', default=root/'tools'/'hcp_tables', help='folder of the small tables')
    p.add_argument('--out', default=root/'nbs'/'results'/'hcp_folds.tsv', help='the table of results')
    a = p.parse_args(argv)
    a.prior = None if a.prior=='none' else a.prior
    if a.plan: return print('\n'.join(f"fold {f}, seed {s}: {', '.join(lost)}" for (f, s), lost in missing(a).items()) or 'all is there')
    if not a.table: run(a)
    if a.table or not missing(a): table(a)

if __name__=='__main__': main()
