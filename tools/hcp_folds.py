"""Real people, each judged once by a model that never saw them: HCP rest in five folds, with three seeds.

    python tools/hcp_folds.py --plan                           # what is there and what is missing; runs nothing
    python tools/hcp_folds.py --fold 0 --seed 0 --budget 15    # 15 CPU minutes; call it again to go on
    python tools/hcp_folds.py --table                          # from what is there: nbs/results/hcp_folds.tsv

The chosen model (fifteen pieces of three CPU minutes):

    python tools/hcp_folds.py --tables tools/hcp_prior --preset nano --epochs 5 --batch 1 \\
        --repeat 3 --every 2 --plain --size '{"xyz": "linear", "parcel_embedding": false}' \\
        --rivals mean gaussian window 'window + time' 'context + window + time'

A piece is one fold with one seed: pretraining, then hidden stretches beside all `imputers`, forecasts beside the
quick `forecasters`, networks beside functional connectivity. What it keeps in tools/hcp_tables is small (sums by
person); models stay in runs/. Rivals come from the registries: one that is added there is judged in every piece that is
done after that."""
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
from brainlm.metrics import (
    bootstrap,
    evaluate,
    imputers,
    masked_rivals,
    model_predictor,
    needs_spectra,
    score_verdicts,
    sum_columns,
)
from brainlm.model import BrainLM, preset
from brainlm.networks import (
    attention_matrix,
    attention_profiles,
    classify_parcels,
    fc_profiles,
    parcel_pairs,
    place_profiles,
)
from brainlm.pretraining import Training, pretrain_learner, scaled_recordings
from brainlm.prior import GaussianPrior, KeptGuesses, SpaceTimePrior, first_choices
from brainlm.recordings import Recording, RecordingStore
from brainlm.scaling import RobustScaler
from brainlm.stats import group_interval, verdicts
from brainlm.windows import TiledWindows

root = Path(__file__).resolve().parents[1]
folds, seeds, ratios = 5, 3, (.2, .5, .75)
bands = {'steps 1 to 20': range(1, 21), 'step 1': [1], 'step 5': [5], 'step 20': [20]}
test_stride = 100                                   # frames from one window of forecasts to the next
ours, control, with_context = 'BrainLM', 'BrainLM, not trained', 'BrainLM, with context'

# Data

def made_up(n, rng):
    "Recordings with eight shared sources, for a test of this script"
    mix = rng.standard_normal((8, 94))
    for i in range(n):
        x = rng.standard_normal((400, 8)).cumsum(0)@mix*.1+rng.standard_normal((400, 94))
        yield Recording(x.astype('float32'), .72, f's{i:02}', task='rest', provenance='simulated')

def atlas_of(a): return 'glasser360' if a.data=='hcp' else 'aal2'

def the_store(a):
    "The recordings, ingested once"
    folder = Path(a.runs)/'store'
    if folder.exists(): return RecordingStore(folder)
    if (mirror := root.parent/'shared'/'mirror').is_dir(): os.environ.setdefault('BRAINLM_MIRROR', str(mirror))
    store = RecordingStore.create(folder, load_parcellation(atlas_of(a)))
    store.extend(fetch_hcp_rest() if a.data=='hcp' else made_up(10, np.random.default_rng(0)))
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

def the_prior(a, store, fold):
    "Scaler and prior of space and time of a fold, fitted once; what it guesses is kept for all seeds"
    words, file = sides(store, fold), Path(a.runs)/f'prior-fold{fold}.safetensors'
    scaler = RobustScaler().fit(store, words)
    if not file.exists():
        prior, choices = SpaceTimePrior(store.n_parcels), None if a.plain else first_choices
        prior.fit(scaled_recordings(store, scaler, words), float(store.table['tr_s'].iloc[0]), choices=choices)
        prior.save(file, fold=fold)
    prior = GaussianPrior.load(file)
    prior.answers = KeptGuesses(Path(a.runs)/'guesses')
    return scaler, prior

def trained(a, store, fold, seed, until):
    "The pretrained model of a piece and the same one before it learned; None where time was up"
    words, config = sides(store, fold), preset(a.preset, n_parcels=store.n_parcels, prior=a.prior or 'none', **a.size)
    folder, kw = Path(a.runs)/f'fold{fold}-seed{seed}', {}
    training = Training(seed=seed, progress=False, batch_size=a.batch, device='cpu')
    if a.prior=='space-time':
        scaler, prior = the_prior(a, store, fold)
        kw = dict(context=a.context, repeat=a.repeat, draws=fold, scaler=scaler, prior=prior)
    learn = pretrain_learner(store, config, folder, words, training=training, **kw)
    fresh = BrainLM(config, store.parcellation, learn.model.scaler)
    fresh.load_state_dict(learn.model.state_dict())
    learn.add_cb(OutOfTime(until))
    if (folder/'last').exists(): return BrainLM.from_pretrained(folder/'last'), fresh.eval()
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
    prior = the_prior(a, store, fold)[1]
    those = masked_rivals(prior, a.rivals) | {ours: model_predictor(model)}
    if a.prior=='space-time':
        model.prior.answers = prior.answers
        those[with_context] = model_predictor(model, 'recording')           # untrained it is `window + time`, exactly
    else: those[control] = model_predictor(fresh)
    windows = TiledWindows(store, model.scaler, words=='test')
    windows.item, windows.start = windows.item[::a.every], windows.start[::a.every]
    return summed(evaluate(those, windows, ratios=ratios), ['model', 'mask_ratio'])

def quick_rivals(a, store, fold, scaler, test):
    "What the quick forecasters of the registry say; nothing where another seed of this fold has asked them"
    if any(file_of(a, 'forecasting', fold, s).exists() for s in range(seeds)): return {}
    train = forecast_windows(store, scaler, sides(store, fold)=='train')
    those = {k: forecasters.make(k, stride=20, device='cpu') for k in forecasters.quick()}
    return {k: f.fit(train.X, train.Y, train.subjects).predict(test.X) for k,f in those.items()}

def forecasting(a, store, fold, model, fresh):
    "The 20 frames to come, beside the quick rivals of the registry"
    test = forecast_windows(store, model.scaler, sides(store, fold)=='test', stride=test_stride)
    said = quick_rivals(a, store, fold, model.scaler, test)
    if a.prior=='space-time': model.prior.answers = fresh.prior.answers = the_prior(a, store, fold)[1].answers
    those = {k: NeuralForecaster(future_net(m), epochs=0, device='cpu') for k,m in ((ours, model), (control, fresh))}
    said |= {k: f.fit(test.X, test.Y, test.subjects).predict(test.X) for k,f in those.items()} # learns nothing here
    stats = forecast_stats(said, test.Y, test.subjects)
    parts = [summed(stats[stats['step'].isin(list(steps))], ['model']).assign(band=k) for k,steps in bands.items()]
    asked = next((f for s in range(seeds) if (f := file_of(a, 'forecasting', fold, s)).exists()), None)
    if asked is not None: parts += [t[~t['model'].isin(said)] for t in [pd.read_csv(asked)]]
    return pd.concat(parts)

def networks(a, store, fold, model, fresh):
    "Share of repeats in which the network of each parcel is found, from attention and without it"
    at, p = np.flatnonzero(sides(store, fold)=='test'), store.parcellation
    profiles = {ours: attention_profiles(attention_matrix(model, store, at)), 'FC': fc_profiles(store, at),
                control: attention_profiles(attention_matrix(fresh, store, at)), 'place': place_profiles(p)}
    found = {k: classify_parcels(v, p) for k,v in profiles.items()}
    right = pd.DataFrame({k: np.where(r.truth!='', (r.predicted==r.truth).mean(0), np.nan) for k,r in found.items()})
    return right.assign(people=len(at))

kept_options = ('data', 'preset', 'prior', 'epochs', 'plain', 'context', 'repeat', 'batch', 'every', 'rivals', 'size')
parts = dict(reconstruction=reconstruction, forecasting=forecasting, networks=networks)

def file_of(a, part, fold, seed): return Path(a.tables)/f'{part}-fold{fold}-seed{seed}.csv'

def missing(a):
    "Pieces and their parts that are not there yet"
    some = range(folds) if a.fold is None else [a.fold]
    every = [(f, s) for s in (range(seeds) if a.seed is None else [a.seed]) for f in some]
    return {o: lost for o in every if (lost := [p for p in a.parts if not file_of(a, p, *o).exists()])}

def run(a):
    "What is missing, as far as the CPU minutes go"
    torch.set_num_threads(1)
    until = time.process_time()+60*a.budget
    store = the_store(a)
    Path(a.tables).mkdir(parents=True, exist_ok=True)
    write_whole(Path(a.tables)/'how.json', {k: getattr(a, k) for k in kept_options})
    for (fold, seed), lost in missing(a).items():
        if time.process_time()>until or (both := trained(a, store, fold, seed, until)) is None: return
        for part in lost:
            if time.process_time()>until: return print(f'fold {fold}, seed {seed}: time is up before {part}')
            start = time.process_time()
            t = parts[part](a, store, fold, *both)
            write_whole(file_of(a, part, fold, seed), t.to_csv(index=False, float_format='%.8g'))
            print(f'fold {fold}, seed {seed}: {part}, {(time.process_time()-start)/60:.1f} CPU minutes', flush=True)

# The table

def command_of(how):
    "The options that made the tables"
    said = f"--preset {how['preset']} --prior {how['prior'] or 'none'} --epochs {how['epochs']}"
    for k in ('batch', 'repeat', 'every'): said += f' --{k} {how[k]}'*(k in how)
    if how.get('size'): said += f" --size '{json.dumps(how['size'])}'"
    return said+' --plain'*how.get('plain', False)

def there(a, part):
    "All pieces of one part, and the words for them"
    every = [(k, s) for s in range(seeds) for k in range(folds)]
    got = {o: pd.read_csv(f) for o in every if (f := file_of(a, part, *o)).exists()}
    n, of = len({f for f,_ in got}), len({s for _,s in got})
    words = f"{n} of {folds} folds, {of} of {seeds} seeds"
    return got, words

def named_data(a, words):
    "Which data, and of what kind"
    return (f'HCP rest, {words}', 'real') if a.data=='hcp' else (f'made up, {words}', 'simulated')

def scored(stats, claim, a, task, words):
    "Rows of one task, all people and seeds pooled"
    stats = stats.groupby(['model', 'subject'], sort=False)[sum_columns+['n_windows']].sum().reset_index()
    b = bootstrap(stats, by='model').rename(columns={'r2': 'value'})
    data, kind = named_data(a, words)
    facts = dict(task=task, data=data, metric='R²', claim=claim)
    mine, found = [o for o in (ours, with_context) if o in b.index], []
    for o in mine: found += score_verdicts(stats, o, [k for k in b.index if k not in mine and alike(o, k)])
    return result_rows(b, found, mine, [k for k in b.index if k==control], kind, **facts)

def alike(one, rival):
    "Whether a rival was given what a model was given: the window, or the person's other frames as well"
    return (one==with_context)==any(o in rival for o in ('context', 'person'))

def of_networks(got, a, words):
    "Rows of the networks, over pairs of mirror parcels"
    right = pd.concat(got.values()).groupby(level=0).mean()
    pairs, ok = parcel_pairs(load_parcellation(atlas_of(a))), right[ours].notna().to_numpy()
    at = np.unique(pairs[ok], return_inverse=True)[1]
    models = [c for c in right if c!='people']
    shares = {k: right[k][ok].to_numpy() for k in models}
    values = {k: [v.mean(), *group_interval(v, at)] for k,v in shares.items()}
    values = pd.DataFrame(values, ['value', 'low', 'high']).T.assign(n=at.max()+1)
    less = {k: shares[ours]-shares[k] for k in models if k!=ours}
    d = {k: np.bincount(at, v)*(at.max()+1)/len(at) for k,v in less.items()}
    intervals = {k: group_interval(v, at) for k,v in less.items()}
    found = verdicts(d, ours, 'accuracy', intervals=intervals, unit='pairs of parcels')
    people = sum(t['people'].iloc[0] for t in {f: t for (f, _), t in got.items()}.values())
    data, kind = named_data(a, f'{people} people, {words}')
    facts = dict(task='seven networks from attention', data=data, metric='accuracy', claim='networks')
    return result_rows(values, found, [ours], [control], kind, 'pairs of parcels', **facts)

def table(a):
    "The rows of all that is there, in a file that is made anew"
    rows = []
    got, words = there(a, 'reconstruction')
    if got:
        all_of = pd.concat(got.values())
        claims = {ratios[0]: 'reconstruction'}
        rows += [scored(t, claims.get(r, ''), a, f'hidden stretches filled in, mask {r:g}', words)
                 for r,t in all_of.groupby('mask_ratio')]
    got, words = there(a, 'forecasting')
    if got:
        all_of = pd.concat(got.values())
        said = 'forecasts of a model that was only pretrained'
        rows += [scored(t, 'forecasting' if k==[*bands][0] else '', a, f'{said}, {k}', words)
                 for k,t in all_of.groupby('band', sort=False)]
    got, words = there(a, 'networks')
    if got: rows.append(of_networks(got, a, words))
    if not rows: return print('nothing is there yet')
    out, how, t = Path(a.out), json.loads((Path(a.tables)/'how.json').read_text()), pd.concat(rows)
    if out.exists():
        old = pd.read_csv(out, sep='\t', keep_default_na=False)
        write_whole(out, old[~old['task'].isin(t['task'])].to_csv(sep='\t', index=False))
    names = {k: f'closed form ({k})' for k,v in imputers.items() if needs_spectra(v)}
    prior = f" on the {how['prior']} prior" if how['prior']=='space-time' else ''
    names[ours] = f"BrainLM ({how['preset']}{prior}, {how['epochs']} epochs)"
    names[with_context] = names[ours].replace(')', ', with context)')
    t = t.assign(**{k: t[k].replace(names) for k in ('model', 'rival')})
    told = t['model']==names[with_context] # as much as the best rival: this one leads
    t = pd.concat([t[told], t[~told]])
    keep_results(out, t, f"python tools/hcp_folds.py {command_of(how)}")
    shown = ['task', 'model', 'value', 'low', 'high', 'rival', 'difference', 'says']
    print(t[shown].to_string(index=False))

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--plan', action='store_true', help='say what is missing, and stop')
    p.add_argument('--table', action='store_true', help='make the table of what is there, and stop')
    p.add_argument('--fold', type=int, choices=range(folds), help='only this one')
    p.add_argument('--seed', type=int, choices=range(seeds), help='only this one')
    p.add_argument('--parts', nargs='+', choices=list(parts), default=list(parts), help='only these')
    p.add_argument('--budget', type=float, default=1e6, help='CPU minutes, looked at after each epoch and each part')
    p.add_argument('--epochs', type=int, default=29, help='of pretraining')
    p.add_argument('--preset', default='tiny', help='size of the model')
    p.add_argument('--prior', default='space-time', help='what it starts from: space-time, gaussian, or none')
    p.add_argument('--context', default='recording', help='what may stand beside a window in training')
    p.add_argument('--repeat', type=int, default=0, help='so many epochs come again, with what the prior guessed')
    p.add_argument('--batch', type=int, default=4, help='windows at a time in training')
    p.add_argument('--every', type=int, default=1, help='judged on every n-th window')
    p.add_argument('--rivals', nargs='+', help='only these of the registry')
    p.add_argument('--plain', action='store_true', help='closed-form rivals with their first weights, not chosen anew')
    p.add_argument('--size', type=json.loads, default={}, help='other fields of the configuration, as JSON')
    p.add_argument('--data', choices=['hcp', 'simulated'], default='hcp', help=argparse.SUPPRESS)
    p.add_argument('--runs', default=root/'runs'/'hcp_folds', help='folder of the models')
    p.add_argument('--tables', default=root/'tools'/'hcp_tables', help='folder of the small tables')
    p.add_argument('--out', default=root/'nbs'/'results'/'hcp_folds.tsv', help='the table of results')
    a = p.parse_args(argv)
    a.prior = None if a.prior=='none' else a.prior
    if a.plan:
        lines = [f"fold {f}, seed {s}: {', '.join(lost)}" for (f, s), lost in missing(a).items()]
        return print('\n'.join(lines) or 'all is there')
    if not a.table: run(a)
    if a.table or not missing(a): table(a)

if __name__=='__main__': main()
