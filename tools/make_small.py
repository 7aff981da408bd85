"""Make `brainlm/models/brainlm-small` again, from public data: one network, three atlases.

Of each data set a list of people is left out, by a rule: the eight test people of the notebooks, the three of the demo, a fifth of the others. The network
learns on windows whose holes the priors have filled once (`tools/scaling.py`). Which of a few trainings is shipped is chosen on people within the list, whom
a second set of priors and networks has not seen; the left-out people are scored once, at the end. Every step is kept, and goes on where it was stopped.

    python tools/make_small.py                               # all steps, in order
    python tools/make_small.py pack                          # where the data are: recordings in half precision, scalers, priors
    python tools/make_small.py fill train --device cuda      # where many cores and a card are; needs the packs alone
    python tools/make_small.py ship                          # where the data are: choose, score, write the folder
    python tools/make_small.py --plan                        # what is there and what is missing
"""
import argparse
import os
import shutil
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

root = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(root), str(root/'tools')]

import numpy as np
import pandas as pd
import scaling
import torch
from scaling import Pool, Run

from brainlm.atlas import load_parcellation
from brainlm.atlases import save_atlases
from brainlm.basics import write_whole
from brainlm.metrics import evaluate, scaled_recordings
from brainlm.mixture import Part, beside_prior, network_gain
from brainlm.model import BrainLM
from brainlm.pretraining import data_card, run_card
from brainlm.prior import GaussianPrior, KeptGuesses, SpaceTimePrior
from brainlm.readouts import PersonEmbedding
from brainlm.recordings import RecordingStore, learned_from, read_parquet, refuse_seen, subject_split
from brainlm.scaling import RobustScaler
from brainlm.small import keep_person
from brainlm.windows import TiledWindows

name = 'brainlm-small'
datasets = dict(hcp='hcp_rest', aal='hcp_sample', psychosis='psychosis')
words = dict(hcp='HCP rest, 360 areas', aal='HCP rest, 94 regions', psychosis='first episode of psychosis, 419 parcels')
# who is left out of everything (`scaling` leaves out these and more), and on how many training people's windows the weights of a prior are chosen
left_out = dict(hcp=dict(valid=0., test=8/30, seed=1), aal=dict(valid=0., test=3/7, seed=8), psychosis=dict(valid=0., test=.2, seed=1))
trials = dict(hcp=12, aal=12, psychosis=6)
# ABIDE, depression and heat pain may be read, but nothing is made from them that is shipped
before = Run('small', 'nano', steps=702, pairs=702, batch=1, lr=2e-3)       # about what the network had learned that was shipped before
runs = [Run('small', 'nano', steps=2000), Run('small', 'tiny', steps=2000), Run('small', 'tiny', steps=5000, flip=True)]

# Where the data are

def toy_people(kind): return [f'{kind}{i}' for i in range(14)]

def simulated(kind, n_time=150):
    "Recordings in place of a data set, for a trial of this script"
    rng = np.random.default_rng(list(kind.encode()))
    p = load_parcellation(dict(hcp='glasser360', aal='aal2', psychosis='schaefer419x7')[kind])
    p = type(p)(p.name, p.table.iloc[:8+len(kind)])
    waves = rng.standard_normal((14, n_time, 3)).cumsum(1)
    x = waves@rng.standard_normal((3, len(p))) + 3*rng.standard_normal((14, n_time, len(p)))
    return [scaling.Recording(o.astype('float32'), .72, s, provenance='simulated') for s,o in zip(toy_people(kind), x, strict=True)], p

def fetched(kind):
    "All recordings of a data set, and its parcellation"
    if kind!='psychosis': return scaling.fetched(kind)
    from brainlm.datasets import fetch_psychosis
    got = fetch_psychosis()                                                 # both sessions
    return got.recordings, got.parcellation

def part_of(a, kind):
    "A data set in its own units, with the prior that is shipped; made where it is not there"
    folder, file = a.work/'recordings'/datasets[kind], a.work/'priors'/f'{datasets[kind]}.safetensors'
    if not (folder/'done').exists():
        shutil.rmtree(folder, ignore_errors=True)
        recordings, parcellation = (simulated if a.simulated else fetched)(kind)
        RecordingStore.create(folder, parcellation).extend(recordings)
        (folder/'done').touch()
    store = RecordingStore(folder)
    split = store.split(**left_out[kind])
    seen = set(split.subjects['test'])-set(scaling.left_out[kind])
    assert not seen, f"scaling.left_out: found {sorted(seen)} missing in {kind}, expected all who are left out here"
    if not file.exists():
        prior, scaler = SpaceTimePrior(store.n_parcels), RobustScaler().fit(store, split)
        prior.fit(scaled_recordings(store, scaler, split), store.table['tr_s'].median(), n_trials=2 if a.simulated else trials[kind])
        file.parent.mkdir(parents=True, exist_ok=True)
        prior.save(file)
    return Part(store, split, prior=GaussianPrior.load(file))

def pack(a):
    "What another machine needs"
    if a.simulated: scaling.fetched = simulated
    scaling.pack(a)

# Where many cores and a card are

def fill(a):
    "What the priors guess, once: by all cores, and by the card where that is fast"
    if a.device=='cuda':
        fast = scaling.try_guesses(a, 'hcp', 'inner')>60
        write_whole(a.work/'choices.json', dict(fill=fast, bf16=False))
    if a.cores>1 or a.device=='cuda': scaling.fill(a)
    else: scaling.fill_one(a, 0)
    print(f"guesses: {len(list((a.work/'guesses').glob('*/*.pt')))} files, {time.time()-a.begun:.0f} s", flush=True)

def all_runs():
    "The trainings: on all people of the list, and to choose among them on some of it; the important ones first"
    return [o for r in runs for o in (replace(r, group='inner'), r)]+[replace(before, group='inner')]

def file_of(a, run): return a.work/'trained'/f'{run.name}.pt'

def one_run(a, run, pools):
    "Train, score on people within the list, keep"
    if file_of(a, run).exists() or not scaling.claimed(file_of(a, run)): return
    for k in left_out:
        if (k, run.group) not in pools and run.group in scaling.groups_of(k): pools[k, run.group] = Pool(a, k, run.group, a.device)
    mine = {k: p for (k, g),p in pools.items() if g==run.group}
    if (got := scaling.trained(run, mine, a.until)) is None: return file_of(a, run).with_suffix('.pt.claim').unlink()
    model, seconds, pairs = got
    kept = dict(run=asdict(run), seconds=seconds, pairs=pairs, model={k: v.cpu() for k,v in model.state_dict().items()})
    if run.group=='inner': kept['gain'] = {k: float(inner_gain(a, model, k, p)) for k,p in mine.items()}
    write_whole(file_of(a, run), lambda part: torch.save(kept, part))
    print(run.name, f'{seconds*1e3:.1f} ms a step, {pairs} pairs', kept.get('gain', ''), flush=True)

def inner_gain(a, model, kind, pool):
    "What a network adds in R², mean over people within the list that it has not seen, ratios, and with and without context"
    on = scaling.coats(model, {kind: pool.parcellation, '': pool.parcellation})[kind]
    t = scaling.scored(on, scaling.score_parts(a, kind, 'inner'))
    return (t['r2_network']-t['r2_prior']).mean()

def train_some(a, number):
    "One process that trains what no other has begun"
    torch.set_num_threads(1)
    pools = {}
    for run in a.runs: one_run(a, run, pools)

def train(a):
    "All trainings that are not there, several at a time on a card"
    for o in (a.work/'trained').glob('*.claim'): o.unlink()                    # of processes that were ended
    if a.device=='cuda': scaling.together(train_some, [(a, i) for i in range(a.workers)])
    else: train_some(a, 0)

# Where the data are, again

def chosen(a):
    "The training of those that are there that adds most on people within the list; and a row for each"
    found = [torch.load(f, weights_only=True) for f in sorted((a.work/'trained').glob('*.pt'))]
    inner = [o for o in found if o['run']['group']=='inner']
    rows = pd.DataFrame([dict(run=Run(**o['run']).name, pairs=o['pairs'], **o['gain'], mean=np.mean([*o['gain'].values()])) for o in inner])
    whole = {Run(**o['run']).name: o for o in found if o['run']['group']=='all'}
    rows['whole'] = [Run(**(o['run'] | dict(group='all'))).name for o in inner]
    may = rows[rows['whole'].isin(whole)]
    if may.empty: raise FileNotFoundError(f"{a.work/'trained'}: found no training with its choice, expected the files of the step 'train'")
    return whole[may.loc[may['mean'].idxmax(), 'whole']], rows.drop(columns='whole')

def coated(a, got, parts):
    "The trained network on each atlas, with scaler, prior and what people have in common. It knows whom it has seen."
    run, first = Run(**got['run']), parts['hcp']
    pool = argparse.Namespace(parcellation=first.store.parcellation, device='cpu')
    model = BrainLM(scaling.network(run, {'hcp': pool}).config, first.store.parcellation)
    own = [k for k in model.state_dict() if k.startswith('prior.') or k=='xyz_mm']
    model.load_state_dict(got['model'] | {k: model.state_dict()[k] for k in own})
    for p in parts.values(): model.seen = learned_from(p.store, p.split, model.seen)
    return {k: on_part(model.eval(), p) for k,p in parts.items()}

def on_part(model, p):
    "A network on a data set, fitted to its training people"
    card = run_card(data_card(p.store, p.split), p.split, p.store)
    on = model.on(p.store.parcellation, RobustScaler().fit(p.store, p.split), p.prior, card)
    keep_person(on, PersonEmbedding().fit([p.store.read(i) for i in p.split.train]))
    return on

def scores_of(a, kind, model, part):
    "Scores on the people who were left out, kept"
    file = a.work/'scores'/f'{kind}.parquet'
    if file.exists(): return read_parquet(file)
    refuse_seen(model, part.store, part.split.subjects['test'])
    size = dict(n_time=model.config.n_time, patch_size=model.config.patch_size)
    windows = TiledWindows(part.store, model.scaler, part.split.test, **size)
    first = ~pd.Series(windows.subjects).duplicated().to_numpy()            # one window a person
    windows.item, windows.start = windows.item[first], windows.start[first]
    model.prior.answers = KeptGuesses(a.work/'guesses'/'left-out')
    stats = evaluate(beside_prior(model), windows, batch_size=4)
    model.prior.answers = None
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, stats.to_parquet)
    return stats

def score_rows(kind, part, gain):
    "Rows for the card"
    who = dict(data=words[kind], left_out=int(gain['n'].iloc[0]), atlas=part.store.parcellation.name)
    return [who | {k: round(v, 4) if isinstance(v, float) else v for k,v in o.items()} for o in gain.to_dict('records')]

def markdown(t): return '\n'.join('| '+' | '.join(map(str, o))+' |' for o in [list(t), ['---']*t.shape[1], *t.values.tolist()])

def card_text(scores, rows, got, models, size):
    "What people should read first"
    from brainlm.datasets import DATASETS
    t = pd.DataFrame(scores)
    t['gain over the same prior'] = [f"{o.gain:+.4f} [{o.low:+.4f}, {o.high:+.4f}], {o.says}" for o in t.itertuples()]
    t = t[['data', 'model', 'mask_ratio', 'r2', 'prior', 'gain over the same prior', 'n']]
    t = t.rename(columns=dict(prior='same prior, no network', r2='R²', mask_ratio='hidden', n='people'))
    n, run = sum(p.numel() for p in next(iter(models.values())).parameters()), Run(**got['run'])
    facts = [(DATASETS[datasets[k]], words[k]) for k in models]
    data = '\n'.join(f'- {w} (`{d.name}`): {d.title}. Terms: {d.licence}' for d,w in facts)
    return (root/'tools'/'small_card.md').read_text(encoding='utf-8').format(
        data=data, table=markdown(t), tried=markdown(rows), weights=f'{n:,}', mb=f'{size:.1f}', pairs=f"{got['pairs']:,}", batch=run.batch,
        steps=f'{run.steps:,}', preset=run.preset, atlases=', '.join(f'`{m.parcellation.name}`' for m in models.values()))

def write_folder(a, models, got, rows, scores):
    "Write the folder of the package"
    by_atlas = {m.parcellation.name: m for m in models.values()}
    card = dict(name=name, scores=scores, training=got['run'] | dict(pairs=got['pairs']), chosen=rows.to_dict('records'), personal_data=True,
                person_embedding='tells people apart: vectors made with it are personal data')
    folder = save_atlases(by_atlas, a.out, **card)
    size = sum(f.stat().st_size for f in folder.rglob('*') if f.is_file())/1e6
    write_whole(folder/'README.md', card_text(scores, rows, got, models, size))
    write_whole(folder/'HCP_TERMS.txt', (root/'tools'/'hcp_terms.txt').read_text(encoding='utf-8'))
    return folder, size

def ship(a):
    "Choose, score on the people who were left out, and write the folder"
    parts = {k: part_of(a, k) for k in left_out}
    got, rows = chosen(a)
    models = coated(a, got, parts)
    rows = rows.round(4)
    print(rows.to_string(index=False))
    gains = {k: network_gain(scores_of(a, k, m, parts[k])) for k,m in models.items()}
    scores = [o for k,g in gains.items() for o in score_rows(k, parts[k], g)]
    folder, size = write_folder(a, models, got, rows, scores)
    print(pd.DataFrame(scores).to_string(index=False))
    print(f'{folder}: {size:.1f} MB')

all_steps = dict(pack=pack, fill=fill, train=train, ship=ship)

def toy(a):
    "The sizes of a trial on simulated recordings"
    global runs, before
    a.cores = 1
    scaling.left_out = {k: [s for s,side in subject_split(toy_people(k), **o).items() if side=='test'] for k,o in left_out.items()}
    scaling.n_test = {k: len(o)+1 for k,o in scaling.left_out.items()}
    scaling.n_pairs, scaling.n_inner = dict.fromkeys(left_out, 72), dict(hcp=72)
    runs, before = [replace(runs[0], steps=3, batch=2)], replace(before, steps=3)

def plan(a):
    "What is there and what is missing"
    files = {f'recordings/{o}/done': a.work/'recordings'/o/'done' for o in datasets.values()}
    files |= {f'{k}-{g}.safetensors': a.data/f'{k}-{g}.safetensors' for k in left_out for g in scaling.groups_of(k)}
    files |= {f'trained/{r.name}.pt': file_of(a, r) for r in all_runs()}
    files |= {f'scores/{k}.parquet': a.work/'scores'/f'{k}.parquet' for k in left_out}
    print('\n'.join(f"{'there' if f.exists() else 'missing':8} {o}" for o,f in files.items()))

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('steps', nargs='*', choices=[[], *all_steps], help='only these; without any: all')
    p.add_argument('--plan', action='store_true', help='say what is there and what is missing, and stop')
    p.add_argument('--work', type=Path, default=root/'runs'/'small', help='where the steps are kept')
    p.add_argument('--data', type=Path, help='folder of the packs (default: packs in the folder of --work)')
    p.add_argument('--out', type=Path, default=root/'brainlm'/'models'/name, help='folder of the model')
    p.add_argument('--device', default='cpu', help='cpu or cuda, of the training')
    p.add_argument('--cores', type=int, default=os.cpu_count() or 1, help='processes that guess')
    p.add_argument('--workers', type=int, default=3, help='processes that train on a card')
    p.add_argument('--until', type=float, default=1e9, help='seconds after which nothing is begun')
    p.add_argument('--simulated', action='store_true', help=argparse.SUPPRESS)
    a = p.parse_args(argv)
    a.cohorts, a.share, a.data = [*left_out][::-1], 1., a.data or a.work/'packs'
    a.begun = time.time()
    a.until += a.begun
    if a.simulated: toy(a)
    a.runs = all_runs()
    if a.plan: return plan(a)
    a.work.mkdir(parents=True, exist_ok=True)
    for o in a.steps or all_steps: all_steps[o](a)

if __name__=='__main__': main()
