"""First contact with real weights: `python tools/check_published.py old_13M` (or a folder), once, where they are.

Prints and writes to check_published_<name>.json, a file to send back: the configuration, the table of keys, how many
parameters there are, how well hidden patches of people at rest are guessed at several scales, how far apart the
embeddings of people are, and a verdict. No weights and no recordings are in that file. CPU, some minutes."""
import argparse
import json
import platform
import sys
import warnings
from pathlib import Path

import numpy as np
import torch

from brainlm import __version__
from brainlm.basics import write_whole
from brainlm.datasets import fetch_hcp_rest
from brainlm.embedding import BrainLMEmbedder, fit_scaler, weights_hash
from brainlm.published import load_published, published_scaler, take_columns

scales = (.1, .3, 1., 3., 10.)

def people(n, frames=400):
    "Series [time, 424] of people at rest (HCP, Glasser 360: 64 parcels are missing), and their repetition time"
    at = np.r_[:360, np.full(64, -1)]
    out = []
    for r in fetch_hcp_rest()[:n]: out.append((take_columns(r.signal[:frames], at), r.dt_s))
    return out

def r2(model, x, there):
    "R² of hidden patches, over all of them; the mask of a seed"
    torch.manual_seed(0)
    with torch.no_grad(): out = model(x)
    guess, mask = out.prediction, out.mask
    truth = model.image(x) if hasattr(model, 'image') else x.unflatten(-1, guess.shape[2:])
    hidden = mask.bool() if guess.ndim==3 else mask[...,None].expand_as(guess)
    hidden = hidden & there(model, guess)
    e, t = (guess-truth)[hidden], truth[hidden]
    return 1-float(e.square().sum()/(t-t.mean()).square().sum())

def seen(model, guess):
    "Places of parcels that are there"
    if guess.ndim==3: return (model.order<360)[None,:,None].expand_as(guess)
    return (torch.arange(guess.shape[1])<360)[None,:,None,None].expand_as(guess)

def by_scale(model, series):
    "R² of hidden patches of the first window of each person, by the scale that one IQR is brought to"
    s = fit_scaler(series, model.parcellation)
    x = np.stack([s.transform(b)[:model.config.n_time].T for b,_ in series])
    x = torch.from_numpy(np.nan_to_num(x)).float()
    return {str(k): round(r2(model, k*x, seen), 4) for k in scales}

def spread(model, series):
    "Distance of people's embeddings over their length"
    e = BrainLMEmbedder(model, scaler='fit', tr_s=series[0][1], progress=False)
    z = e.fit_transform([b for b,_ in series])
    return round(float(np.linalg.norm(z-z.mean(0), axis=1).mean()/np.linalg.norm(z, axis=1).mean()), 4)

def verdict(said):
    "One line"
    if 'r2' not in said: return 'loaded exactly; a fine-tuned model guesses nothing, so R² was not taken'
    k = max(said['r2'], key=said['r2'].get)
    if said['r2'][k]<.05:
        return f"loaded exactly, but hidden patches are guessed at no scale (best R² {said['r2'][k]} at {k}): send this"
    near = 'as expected' if k in ('0.3','1.0','3.0') else 'which is not the scale that was expected: send this'
    return f"works: best R² {said['r2'][k]} at {k} IQR, {near} (the paper: .278 on HCP)"

def check(name, n=8):
    "Everything that is to be known of a folder or a published name"
    model = load_published(name, 'fit')
    keys = {k: list(v.shape) for k,v in model.state_dict().items()}
    said = dict(name=Path(name).name, brainlm=__version__, torch=torch.__version__, python=platform.python_version(),
        config={k: v for k,v in model.published.items()}, origin=model.origin, weights_sha256=weights_hash(model),
        n_keys=len(keys), n_parameters=sum(p.numel() for p in model.parameters()), keys=keys,
        ranges={k: [round(float(f()), 4) for f in (v.min, v.mean, v.std, v.max)]
            for k,v in model.state_dict().items() if v.numel()>1})
    said['ukb_scale'] = published_scaler('ukb', model.config.n_parcels)[0] is not None
    if model.config.n_parcels!=424: return said | dict(verdict='loaded exactly; not of 424 parcels: nothing was read')
    try: series = people(n)
    except FileNotFoundError as e: return said | dict(verdict=f'loaded exactly; HCP at rest could not be had ({e})')
    if not model.published.get('finetuned'): said['r2'] = by_scale(model, series)
    said['spread'] = spread(model, series)
    return said | dict(verdict=verdict(said))

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('model', help='old_13M, vitmae_111M, vitmae_650M, age, or a folder')
    p.add_argument('--people', type=int, default=8, help='of HCP at rest')
    p.add_argument('--out', help='file to write; default check_published_<name>.json')
    a = p.parse_args(argv)
    warnings.simplefilter('ignore', FutureWarning)
    try: said = check(a.model, a.people)
    except (ValueError, FileNotFoundError) as e:
        said = dict(name=Path(a.model).name, brainlm=__version__, verdict=f'refused: {e}')
    out = Path(a.out or f"check_published_{said['name']}.json")
    write_whole(out, said)
    print(json.dumps({k: said[k] for k in said if k not in ('keys','ranges')}, indent=1))
    for k,v in said.get('keys', {}).items(): print(f'  {k} {v}')
    print(f"{said['verdict']}\nSend back: {out}")
    return said

if __name__=='__main__': sys.exit(main()['verdict'].startswith('refused'))
