"""Kinds of bad input, one a line: what is given, and words that the answer must hold (the file or field, and what was found).
Files that mean harm are in hostile.py; tests/test_bad_input.py walks both lists, and the book counts them."""
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import hostile
import numpy as np
import pandas as pd

from brainlm.atlas import Parcellation, load_parcellation
from brainlm.recordings import Recording, RecordingStore

class World:
    "A folder with a store of eight simulated people, a model that has learned nothing, tables, and an atlas of cubes"
    def __init__(self, folder):
        self.at = Path(folder)
        rng = np.random.default_rng(0)
        self.p = load_parcellation('aal2')
        self.store = RecordingStore.create(self.at/'s', self.p)
        self.recs = [Recording((1000+rng.standard_normal((60, 94))).astype('float32'), 2., f's{i}', provenance='simulated',
                               covariates=dict(age=20.+i, group='ab'[i%2], flat=1., word=f'w{i}')) for i in range(12)]
        self.store.extend(self.recs)
        RecordingStore.create(self.at/'empty', self.p)
        self.atlas = hostile.cubes(self.at)
        (self.at/'people.csv').write_text('subject,score\n'+''.join(f's{i},{i}\n' for i in range(12)))
        (self.at/'in').mkdir()
        for i in range(2): np.savetxt(self.at/f'in/sub-{i}.dat', rng.standard_normal((30, 94)), fmt='%.3f')
        (self.at/'x.txt').write_text('hello there\n')
        (self.at/'wide.csv').write_text('1.5,'*2_000_000)
        (self.at/'wide.tsv').write_text('['*100_000)
        (self.at/'bytes').write_bytes(bytes(range(256)))
        self.model = self._model()
        self.model.save_pretrained(self.at/'m')
        for name in ('no_weights', 'cut_weights', 'odd_config', 'no_json', 'huge_config'):
            shutil.copytree(self.at/'m', self.at/name)
        (self.at/'no_weights/model.safetensors').unlink()
        w = self.at/'cut_weights/model.safetensors'
        w.write_bytes(w.read_bytes()[:100])
        c = (self.at/'m/config.json').read_text()
        (self.at/'odd_config/config.json').write_text(c.replace('"width": 8', '"width": "eight"'))
        (self.at/'huge_config/config.json').write_text(c.replace('"width": 8', '"width": 8000000'))
        (self.at/'no_json/config.json').write_text('{')
        self._stores()

    def _model(self):
        import torch

        from brainlm.model import BrainLM, preset
        from brainlm.scaling import RobustScaler
        torch.manual_seed(0)
        size = dict(width=8, heads=1, mlp=8, layers=1, decoder_width=8, decoder_heads=1, decoder_mlp=8, decoder_layers=1)
        return BrainLM(preset('tiny', n_parcels=94, **size), self.p, RobustScaler().fit(self.store, rows='all'))

    def _stores(self):
        "Stores that are damaged"
        for name in ('no_table', 'odd_table', 'odd_array', 'newer', 'no_atlas'): shutil.copytree(self.at/'s', self.at/name)
        (self.at/'no_table/recordings.parquet').unlink()
        (self.at/'odd_table/recordings.parquet').write_bytes(b'PAR1 nothing PAR1')
        for f in (self.at/'odd_array').rglob('zarr.json'): f.write_text('[')
        f = self.at/'newer/bold/zarr.json'
        d = json.loads(f.read_text())
        d['attributes']['version'] = 99
        f.write_text(json.dumps(d))
        (self.at/'no_atlas/parcellation.parquet').write_text('nothing')

    def file(self, name, words):
        (self.at/name).write_bytes(words if isinstance(words, bytes) else words.encode())
        return self.at/name

calls,commands = {},{}

def api(says):
    "A call that must raise, and words of its message"
    def enter(f):
        calls[f.__name__] = says,f
        return f
    return enter

def sh(name, words, says, code=1): commands[name] = words,says,code

def rec(w, **kw): return replace(w.recs[0], **{'subject': 'new', **kw})

# Recordings and stores

def _adds(name, says, **kw): calls[name] = says,lambda w: w.store.append(rec(w, **kw))

_adds('subject_that_is_empty', 'subject is empty', subject=' ')
_adds('subject_that_is_a_number', 'subject must be a str, found 7', subject=7)
_adds('time_that_is_a_word', 'dt_s .* must be a number of seconds', dt_s='2')
_adds('time_of_zero', 'dt_s .* must be in seconds, above 0', dt_s=0.)
_adds('time_in_milliseconds', 'dt_s .* at most 60, found 2000', dt_s=2000.)
_adds('time_that_is_nan', 'dt_s', dt_s=float('nan'))
_adds('signal_that_is_a_list', 'signal must be an array', signal=[[1., 2.]])
_adds('signal_of_float64', r"astype\('float32'\)", signal=np.zeros((60, 94)))
_adds('signal_of_other_parcels', 'signal has 93 parcels, parcellation aal2', signal=np.ones((60, 93), 'float32'))
_adds('signal_that_is_turned', 'signal has 60 parcels', signal=np.random.default_rng(1).normal(size=(94, 60)).astype('float32'))
_adds('signal_of_one_frame', 'signal has 1 time point', signal=np.ones((1, 94), 'float32'))
_adds('signal_with_infinity', 'signal has inf in', signal=np.where(np.eye(60, 94)>0, np.inf, 1.+np.arange(94)).astype('float32'))
_adds('signal_with_gaps', 'signal has', signal=np.where(np.eye(60, 94)>0, np.nan, 1.+np.arange(60)[:,None]).astype('float32'))
_adds('signal_that_is_missing', 'every parcel is missing', signal=np.full((60, 94), np.nan, 'float32'))
_adds('signal_that_is_constant', 'signal is constant', signal=np.ones((60, 94), 'float32'))
_adds('provenance_of_another_word', 'provenance must be one of', provenance='fake')
_adds('covariate_with_a_taken_name', 'covariate task has the name of a column', covariates=dict(task='x'))
_adds('covariate_that_is_a_list', 'covariate x must be a bool, int', covariates=dict(x=[1]))
_adds('covariate_of_65_bits', 'covariate x is .* more than 64 bits', covariates=dict(x=2**70))
_adds('covariate_of_another_type', 'covariate age is', covariates=dict(age='old'))
_adds('covariates_that_are_a_list', 'covariates must be a dict', covariates=[1])

@api('duplicate')
def recording_that_is_there(w): w.store.append(w.recs[0])

@api('expected a Recording, found int')
def recording_that_is_a_number(w): w.store.append(3)

@api('nowhere is not a RecordingStore')
def store_that_is_not_there(w): RecordingStore(w.at/'nowhere')

@api('x.txt is not a RecordingStore')
def store_that_is_a_file(w): RecordingStore(w.at/'x.txt')

@api('no_table is not a RecordingStore: recordings.parquet was not found')
def store_without_a_table(w): RecordingStore(w.at/'no_table')

@api('odd_table/recordings.parquet')
def store_whose_table_is_damaged(w): RecordingStore(w.at/'odd_table')

@api('odd_array is not a RecordingStore')
def store_whose_array_is_damaged(w): RecordingStore(w.at/'odd_array')

@api('newer has format version 99')
def store_of_a_newer_version(w): RecordingStore(w.at/'newer')

@api('no_atlas.*parcellation')
def store_whose_parcellation_is_damaged(w): return len(RecordingStore(w.at/'no_atlas').parcellation)

@api('s holds recordings of parcellation aal2')
def store_of_another_parcellation(w): RecordingStore.create(w.at/'s', w.atlas.parcellation, exist_ok=True)

@api('chunk_rows must be a whole number above 0')
def chunks_of_no_rows(w): RecordingStore.create(w.at/'c', w.p, chunk_rows=0)

@api('recording 0 has 60 time points, asked for 100')
def window_that_is_too_long(w): w.store.read(0, 0, 100)

@api('rows: found 3 bools')
def rows_that_are_too_few(w): w.store.rows([True]*3)

@api('rows: found')
def rows_that_are_words(w): w.store.rows(['a', 'b'])

@api('recording 99|99')
def row_that_is_not_there(w): w.store[99]

@api('valid and test must be shares')
def shares_above_one(w): w.store.split(.8, .8)

@api('split: found 2 words, expected one for each')
def split_that_is_too_short(w):
    from brainlm.recordings import Split
    Split.of(w.store, ['train', 'test'])

@api('split: found .* expected what Split.to_dict gives')
def split_that_is_no_split(w):
    from brainlm.recordings import Split
    Split.from_dict({'a': 1}, w.store)

@api('none.json')
def split_that_is_not_there(w):
    from brainlm.recordings import Split
    Split.load(w.at/'none.json', w.store)

@api('x.txt')
def split_that_is_no_json(w):
    from brainlm.recordings import Split
    Split.load(w.at/'x.txt', w.store)

# Parcellations

@api("no built-in parcellation 'a425'")
def parcellation_with_another_name(w): load_parcellation('a425')

@api('none.tsv')
def parcellation_that_is_not_there(w): load_parcellation(w.at/'none.tsv')

def _table(kind, says, **change):
    def call(w):
        t = w.atlas.parcellation.table.assign(**{k: v for k,v in change.items() if v is not None})
        Parcellation('x', t.drop(columns=[k for k,v in change.items() if v is None]))
    calls[kind] = says,call

_table('parcels_without_ids', "the table lacks", id=None)
_table('parcels_with_one_id', "column 'id': duplicate ids", id=1)
_table('parcels_of_negative_id', "column 'id': expected positive whole numbers", id=-1)
_table('parcels_without_a_place', "column 'x': missing coordinates", x=np.r_[np.nan, np.zeros(11)])
_table('parcels_of_an_empty_word', "hemisphere.*is empty", hemisphere='')
_table('parcels_without_names', "column 'name': empty", name='')

@api('x.txt')
def parcellation_that_is_prose(w): load_parcellation(w.at/'x.txt')

@api('bytes')
def parcellation_of_bytes(w): load_parcellation(w.at/'bytes')

@api('label image')
def label_image_of_fractions(w):
    import nibabel as nib
    nib.save(nib.Nifti1Image(np.full((3, 3, 3), .5), np.eye(4)), w.at/'half.nii')
    Parcellation.from_image(w.at/'half.nii')

@api('names: 2 names for 12 labels')
def label_image_with_two_names(w): Parcellation.from_image(w.atlas.volume, names=['a', 'b'])

@api('volume of the atlas: no file')
def atlas_whose_volume_is_not_there(w): hostile.Atlas(w.atlas.parcellation, 'none.nii.gz')

# Tables of people

def _people(name, words, says, on=None):
    def call(w):
        from brainlm.people import read_people
        read_people(w.file(f'{name}.csv', words), on)
    calls[name] = f'{name}.csv.*{says}',call

_people('people_without_an_id', 'age,sex\n3,M\n', 'no column of people among age, sex')
_people('people_of_another_column', 'subject,age\ns1,3\n', r"no column 'eid' \(--on\)", 'eid')
_people('people_of_ragged_rows', 'subject,age\n1,2,3\n', 'row 2 has 3 cells')
_people('people_without_a_name', 'subject,age\n,2\n', 'row 2 has no subject')
_people('people_of_twin_columns', 'subject,age,age\n1,2,3\n', "column 'age' stands twice")
_people('people_of_nothing', '', 'found nothing')
_people('people_of_blanks', '\n \n,,\n', 'found nothing')
_people('people_of_thousands', 'subject\tpay\n1\t985\n2\t45,000\n', "row 3, column pay: found '45,000'")
_people('people_of_infinity', 'subject,x\n1,2\n2,1e999\n', "row 3, column x: found '1e999'")
_people('people_with_an_open_quote', 'subject,x\n1,"'+'a'*200_000+'\n', 'open quote')
_people('people_in_a_workbook', b'PK\x03\x04junk', 'a workbook')
_people('people_of_a_long_line', 'subject'+',x'*3_000_000, 'columns|characters')
_people('people_of_bars', 'subject|age\n1|2\n', 'no tab, comma or semicolon')

_people('people_of_millions', 'subject,age\n'+'zz,1\n'*1_000_001, 'found 1,000,002 rows, expected a row for each of at most')

@api('none.csv: found no such file')
def people_that_are_not_there(w): w.store.annotate(w.at/'none.csv')

@api('none of its 1 ids')
def people_that_are_others(w): w.store.annotate(w.file('others.csv', 'subject,age\nzz,3\n'))

@api('rows 2 and 3 are both of')
def people_who_stand_twice(w): w.store.annotate(w.file('twice.csv', 'subject,x\ns1,3\ns1,4\n'))

@api('no row for')
def networks_that_lack_parcels(w):
    from brainlm.people import annotate_networks
    w.p.table[['id']].assign(mine='a')[3:].to_csv(w.at/'net.csv', index=False)
    annotate_networks(w.store, w.at/'net.csv')

@api('x.txt')
def networks_that_are_prose(w):
    from brainlm.people import annotate_networks
    annotate_networks(w.store, w.at/'x.txt')

# Files of series, beside those of hostile.py

def _reads(name, says, how, **settings):
    def call(w):
        from brainlm.preprocessing import read_recording
        d = w.at/f'f_{name}'
        d.mkdir()
        read_recording(how(d, w), w.atlas, **settings)
    calls[name] = says,call

X = hostile.series()
def _tsv(d, x=X, columns=hostile.names, **kw):
    pd.DataFrame(x, columns=columns).to_csv(d/'sub-1_timeseries.tsv', sep='\t', index=False, **kw)
    return d/'sub-1_timeseries.tsv'

def _npy(d, x):
    np.save(d/'sub-1.npy', x)
    return d/'sub-1.npy'

_reads('file_that_is_not_there', 'no such file or folder', lambda d, w: d/'none.npy')
_reads('file_that_is_empty', 'is empty', lambda d, w: w.file(f'{d.name}/a.nii', b''))
_reads('file_of_bytes', 'is of no kind known', lambda d, w: w.at/'bytes')
_reads('image_that_is_text', 'is not a NIfTI', lambda d, w: w.file(f'{d.name}/a.nii', 'hello'))
_reads('folder_of_nothing', 'is a folder without Arrow files', lambda d, w: d)
_reads('pointer_of_git_annex', 'datalad get', lambda d, w: w.file(f'{d.name}/a.nii.gz', '/annex/objects/MD5-1'))
_reads('pointer_of_git_lfs', 'git lfs pull', lambda d, w: w.file(f'{d.name}/a.npy', 'version https://git-lfs.github.com/spec'))

def _link(d, w):
    os.symlink('nowhere', d/'a.npy')
    return d/'a.npy'
_reads('link_to_nothing', 'is a link to nowhere', _link)
_reads('array_without_a_time', 'has no repetition time', lambda d, w: _npy(d, X))
_reads('array_of_other_parcels', 'expected 12 columns', lambda d, w: _npy(d, X[:,:11]), tr_s=2.)
_reads('array_of_three_sides', 'has shape', lambda d, w: _npy(d, X[None]), tr_s=2.)
_reads('array_that_is_square', 'either side could be time', lambda d, w: _npy(d, X[:12]), tr_s=2.)
_reads('array_of_words', 'holds', lambda d, w: _npy(d, X.astype(str)), tr_s=2.)
_reads('array_that_is_constant', 'is all zero or constant', lambda d, w: _npy(d, np.ones_like(X)), tr_s=2.)
_reads('array_of_infinity', 'infinit', lambda d, w: _npy(d, np.where(np.eye(60, 12)>0, np.inf, X)), tr_s=2.)
_reads('table_of_another_atlas', 'are no parcels of cubes', lambda d, w: _tsv(d, columns=[f'V{i}' for i in range(12)]), tr_s=2.)
_reads('table_of_few_parcels', 'has 5 of the 12 parcels', lambda d, w: _tsv(d, X[:,:5], hostile.names[:5]), tr_s=2.)
_reads('table_with_a_name_twice', 'names a column twice', lambda d, w: _tsv(d, columns=[*hostile.names[:11], 'L_a']), tr_s=2.)
_reads('table_without_rows', 'has a header and no rows', lambda d, w: _tsv(d, X[:0]), tr_s=2.)
_reads('table_with_a_word', "has words in the column 'L_a', first 'bad'",
       lambda d, w: w.file(f'{d.name}/sub-1_timeseries.tsv', '\t'.join(hostile.names)+'\n'+('\t'.join(['1']*12)+'\n')*30+'\t'.join(['bad']*12)), tr_s=2.)
_reads('table_of_gaps', 'NaN|has', lambda d, w: _tsv(d, np.where(np.eye(60, 12)>0, np.nan, X)), tr_s=2.)
_reads('table_of_comments', 'lines of comments', lambda d, w: w.file(f'{d.name}/a.tsv', '# a\n'*30), tr_s=2.)
_reads('image_of_a_phase', 'is a phase image', lambda d, w: _npy(d, X).rename(d/'sub-1_part-phase_bold.npy'), tr_s=2.)
_reads('image_of_three_sides', 'is a 3-D image', lambda d, w: shutil.copy(w.atlas.volume, d/'a_bold.nii.gz'))
_reads('image_of_a_t1_space', 'is in the space T1w', lambda d, w: hostile.volume(d/'sub-1_space-T1w_bold.nii'))
_reads('image_without_a_space', 'says nowhere in which space', lambda d, w: hostile.volume(d/'sub-1_bold.nii', sform_code=0, qform_code=0))
_reads('image_far_away', 'of the atlas: the image spans', lambda d, w: hostile.volume(d/'sub-1_bold.nii', srow_x=[-8, 0, 0, 900], qform_code=0))
_reads('image_that_is_flipped', 'left and right', lambda d, w: hostile.volume(d/'sub-1_bold.nii', srow_x=[8, 0, 0, -88]))
_reads('image_of_zero_seconds', 'repetition time of 0', lambda d, w: hostile.volume(d/'sub-1_bold.nii', pixdim=[-1, 8, 8, 8, 0, 0, 0, 0]))
_reads('image_of_2000_seconds', 'milliseconds', lambda d, w: hostile.volume(d/'sub-1_bold.nii', pixdim=[-1, 8, 8, 8, 2000, 0, 0, 0]))

def _side(words):
    return lambda d, w: (w.file(f'{d.name}/sub-1_timeseries.json', words), _tsv(d))[1]
_reads('sidecar_that_is_no_json', 'is not JSON', _side('{'))
_reads('sidecar_of_a_list', 'holds a list', _side('[2]'))
_reads('sidecar_of_words', 'RepetitionTime is', _side('{"RepetitionTime": "two"}'))
_reads('sidecar_of_yes', 'RepetitionTime is True', _side('{"RepetitionTime": true}'))
_reads('sidecar_of_zero', 'RepetitionTime is 0', _side('{"RepetitionTime": 0}'))
_reads('sidecar_of_nothing', 'RepetitionTime is None', _side('{"RepetitionTime": null}'))
_reads('sidecar_of_another_time', 'contradictory repetition times',
       lambda d, w: (w.file(f'{d.name}/sub-1_bold.json', '{"RepetitionTime": 3}'), hostile.volume(d/'sub-1_bold.nii'))[1])

def _settings(name, says, **kw):
    def call(w):
        from brainlm.preprocessing import Settings
        Settings(**kw)
    calls[name] = says,call

_settings('setting_of_zero_seconds', 'tr_s: found 0', tr_s=0)
_settings('setting_of_a_strategy', "strategy: found 'best', expected one of", strategy='best')
_settings('setting_of_coverage', 'min_coverage: found 2, expected a share', min_coverage=2)
_settings('setting_of_a_filter', 'low_pass_hz: found -1', low_pass_hz=-1)
_settings('setting_of_provenance', "provenance: found 'fake'", provenance='fake')
_settings('setting_of_target', 'target_tr_s: found 100', target_tr_s=100)

def _intake(name, says, **kw):
    def call(w):
        from brainlm.preprocessing import preprocess
        preprocess(kw.pop('what', w.at/'in'), w.at/f'st_{name}', hostile.Atlas(w.p), progress=False, **kw)
    calls[name] = says,call

_intake('intake_of_nothing', 'no such file or folder', what='nowhere')
_intake('intake_with_no_jobs', 'jobs: found 0', jobs=0)
_intake('intake_with_half_a_pattern', "subject_pattern: found '\\('", subject_pattern='(')
_intake('intake_with_a_pattern_without_a_group', "expected a group for the subject", subject_pattern='sub')
_intake('intake_of_another_space', 'no fMRI found in space fsLR', space='fsLR')
_intake('intake_with_a_manifest_that_is_not_there', 'none.tsv', manifest='none.tsv')

def _manifest(name, says, words):
    def call(w):
        from brainlm.preprocessing import preprocess
        preprocess(w.at/'in', w.at/f'st_{name}', hostile.Atlas(w.p), progress=False, manifest=w.file(f'{name}.tsv', words))
    calls[name] = f'{name}.tsv.*{says}',call

_manifest('manifest_without_files', "expected one called 'file'", 'a\tb\n1\t2\n')
_manifest('manifest_with_an_odd_column', "found a column 'mood'", 'file\tmood\nx\ty\n')
_manifest('manifest_with_a_file_twice', 'stands in two rows', 'file\tsubject\nx\ta\nx\tb\n')
_manifest('manifest_of_nothing', 'found|table', '')

# Models

def _loads(name, folder, says):
    def call(w):
        from brainlm.model import BrainLM
        BrainLM.from_pretrained(w.at/folder)
    calls[name] = says,call

_loads('model_that_is_not_there', 'nothing', 'config.json: not found')
_loads('model_without_weights', 'no_weights', 'model.safetensors: not found')
_loads('model_with_half_its_weights', 'cut_weights', 'model.safetensors')
_loads('model_whose_config_is_half', 'no_json', 'config.json')
_loads('model_whose_width_is_a_word', 'odd_config', 'config.json|width')
_loads('model_that_is_too_wide', 'huge_config', 'model.safetensors|config.json')
_loads('model_that_is_a_store', 's', 'config.json: not found')

@api('preset: found .huge., expected one of')
def preset_that_is_unknown(w):
    from brainlm.model import preset
    preset('huge')

@api('expected a multiple of')
def config_of_odd_heads(w):
    from brainlm.model import preset
    preset('tiny', n_parcels=94, width=10, heads=3)

@api('parcellation: found 94 parcels')
def model_of_another_parcellation(w):
    from brainlm.model import BrainLM, preset
    BrainLM(preset('tiny', n_parcels=12), w.p)

@api('clip: found -1')
def scaler_that_clips_at_nothing(w):
    from brainlm.scaling import RobustScaler
    RobustScaler(clip=-1)

@api('not fitted')
def scaler_that_was_not_fitted(w):
    from brainlm.scaling import RobustScaler
    RobustScaler().transform(np.ones((5, 94)))

@api(r'recording has shape .* expected \[time, 94\]')
def scaler_of_another_parcellation(w): w.model.scaler.transform(np.ones((5, 9)))

@api("pooling: found 'max'")
def pooling_that_is_unknown(w):
    from brainlm.embedding import BrainLMEmbedder
    BrainLMEmbedder(w.model, 'max').fit(w.store)

@api('recording 0: found shape')
def recording_of_other_parcels(w):
    from brainlm.embedding import BrainLMEmbedder
    BrainLMEmbedder(w.model).fit(w.store).transform([np.zeros((60, 9))])

@api('recording 0: found 3 time points')
def recording_that_is_too_short(w):
    from brainlm.embedding import BrainLMEmbedder
    BrainLMEmbedder(w.model).fit(w.store).transform([np.random.default_rng(0).normal(size=(3, 94))])

@api('m_edited/config.json is not what was saved')
def model_whose_configuration_was_edited(w):
    from brainlm.model import BrainLM
    shutil.copytree(w.at/'m', w.at/'m_edited')
    f = w.at/'m_edited/config.json'
    f.write_text(f.read_text().replace('"mask_ratio": 0.75', '"mask_ratio": 0.7'))
    BrainLM.from_pretrained(w.at/'m_edited')

@api('recording: found a ndarray, expected a Recording')
def array_to_be_filled_in(w):
    from brainlm.small import fill_in
    fill_in(w.model, w.recs[0].signal)

@api('n: found 2.5 frames, expected a whole number')
def forecast_of_half_a_frame(w):
    from brainlm.small import forecast
    forecast(w.model, w.recs[0], 2.5)

@api("learned from the store 's' .* found the store 'other_store'")
def training_taken_up_on_another_store(w):
    import torch

    from brainlm.model import preset
    from brainlm.pretraining import Training, pretrain_learner
    size = dict(width=8, heads=1, mlp=8, layers=1, decoder_width=8, decoder_heads=1, decoder_mlp=8, decoder_layers=1)
    how = dict(training=Training(batch_size=2, progress=False, device='cpu'))
    torch.manual_seed(0)
    sides = ['train']*10+['valid']*2
    pretrain_learner(w.store, preset('tiny', n_parcels=94, **size), w.at/'begun', sides, **how).pretrain(1)
    other = RecordingStore.create(w.at/'other_store', w.p)
    other.extend(replace(r, subject=f'o{i}', signal=r.signal+1) for i,r in enumerate(w.recs))
    pretrain_learner(other, preset('tiny', n_parcels=94, **size), w.at/'begun', sides, **how).pretrain(2, resume=True)

@api('mask ratio: found 1.0')
def mask_of_everything(w):
    import torch

    from brainlm.masking import random_mask
    random_mask(torch.ones(1, 4, 4, dtype=torch.bool), 1.)

@api('forecaster|expected one of')
def rival_that_is_unknown(w):
    from brainlm.baselines import forecasters
    forecasters['oracle']

# The command line: name, words, what the one line on stderr says, exit code

sh('unknown_command', 'train', 'invalid choice', 2)
sh('pretrain_without_out', 'pretrain s', '--out', 2)
sh('pretrain_of_a_huge_preset', 'pretrain s --out o --preset huge', 'invalid choice', 2)
sh('pretrain_of_no_epochs', 'pretrain s --out o --epochs 0', 'whole number above 0', 2)
sh('pretrain_of_half_an_epoch', 'pretrain s --out o --epochs 1.5', 'epochs', 2)
sh('pretrain_with_a_word_for_a_rate', 'pretrain s --out o --lr fast', "found 'fast', expected a number", 2)
sh('pretrain_of_no_rate', 'pretrain s --out o --lr 0', 'lr: found 0.0, expected a learning rate above 0')
sh('pretrain_of_a_negative_rate', 'pretrain s --out o --lr -1', 'lr: found -1.0')
sh('pretrain_that_hides_all', 'pretrain s --out o --mask-ratios 1', 'mask.ratios: found .*1.0')
sh('pretrain_that_hides_nothing', 'pretrain s --out o --mask-ratios 0', 'mask.ratios: found .*0.0')
sh('pretrain_with_fewer_workers_than_none', 'pretrain s --out o --workers -1', '--workers: found -1, expected at least 0')
sh('pretrain_of_nothing', 'pretrain nowhere --out o', 'nowhere is not a RecordingStore')
sh('pretrain_of_an_empty_store', 'pretrain empty --out o', 'empty')
sh('pretrain_of_a_damaged_table', 'pretrain odd_table --out o', 'odd_table/recordings.parquet')
sh('pretrain_with_shares_above_one', 'pretrain s --out o --valid .9 --test .9', 'valid and test must be shares')
sh('pretrain_with_a_negative_share', 'pretrain s --out o --valid -1', 'valid')
sh('pretrain_on_a_device_of_a_dream', 'pretrain s --out o --epochs 1 --device quantum', '--device: found', 2)
sh('preprocess_without_a_store', 'preprocess in', 'STORE', 2)
sh('preprocess_with_no_jobs', 'preprocess in st --jobs 0', 'whole number above 0', 2)
sh('preprocess_by_the_best_strategy', 'preprocess in st --strategy best', 'invalid choice', 2)
sh('preprocess_of_nothing', 'preprocess nowhere st --parcellation aal2', 'nowhere: no such file')
sh('preprocess_in_zero_seconds', 'preprocess in st --parcellation aal2 --tr 0', '--tr|tr_s: found 0')
sh('preprocess_of_another_atlas', 'preprocess in st --parcellation a425 --tr 2', "no built-in parcellation 'a425'")
sh('preprocess_by_a_table_of_prose', 'preprocess in st --parcellation x.txt --tr 2', 'x.txt')
sh('preprocess_without_its_volume', 'preprocess in st --parcellation aal2 --volume none.nii --tr 2', 'no file none.nii')
sh('preprocess_with_half_a_pattern', 'preprocess in st --parcellation aal2 --tr 2 --subject-pattern (', 'subject.pattern')
sh('preprocess_with_a_lost_manifest', 'preprocess in st --parcellation aal2 --tr 2 --manifest none.tsv', 'none.tsv')
sh('preprocess_into_another_atlas', 'preprocess in s --parcellation glasser360 --tr 2', 'parcellation aal2')
sh('preprocess_into_a_file', 'preprocess in x.txt --parcellation aal2 --tr 2', 'x.txt')
sh('preprocess_to_a_lost_address', 'preprocess in nope://x/y --parcellation aal2 --tr 2', 'nope')
sh('plan_into_no_folder', 'preprocess in st --parcellation aal2 --tr 2 --plan no/plan.tsv', 'no/plan.tsv')
sh('annotate_with_nothing', 'annotate s', '--table')
sh('annotate_with_a_lost_table', 'annotate s --table none.csv', 'none.csv')
sh('annotate_with_prose', 'annotate s --table x.txt', 'x.txt')
sh('annotate_by_another_column', 'annotate s --table people.csv --on eid', "eid")
sh('annotate_nothing', 'annotate nowhere --table people.csv', 'nowhere')
sh('annotate_a_model', 'annotate m --table people.csv', 'm')
sh('annotate_with_lost_networks', 'annotate s --networks none.csv', 'none.csv')
sh('qc_of_nothing', 'qc nowhere', 'nowhere is not a RecordingStore')
sh('qc_of_an_empty_store', 'qc empty', 'holds no recordings')
sh('qc_of_no_recordings', 'qc s --show 0', 'whole number above 0', 2)
sh('qc_into_a_file', 'qc s --out x.txt/page.html', 'x.txt')
sh('finetune_without_a_model', 'finetune s --out o --target age', '--model --preset', 2)
sh('finetune_without_a_target', 'finetune s --out o --preset tiny', '--target', 2)
sh('finetune_of_a_lost_column', 'finetune s --out o --preset tiny --target height', "target: found 'height'")
sh('finetune_of_words', 'finetune s --out o --preset tiny --target word --epochs 1', 'word')
sh('finetune_of_what_is_flat', 'finetune s --out o --preset tiny --target flat --epochs 1', 'flat|constant')
sh('finetune_of_a_lost_model', 'finetune s --out o --model nothing --target age --epochs 1', 'nothing')
sh('finetune_of_half_a_model', 'finetune s --out o --model cut_weights --target age --epochs 1', 'model.safetensors')
sh('finetune_with_a_lost_table', 'finetune s --out o --preset tiny --target x --table none.csv', 'none.csv')
sh('finetune_with_a_table_of_one_line', 'finetune s --out o --preset tiny --target x --table wide.csv', 'wide.csv: has a line of more than')
sh('preprocess_by_a_plan_of_one_word', 'preprocess in st --parcellation aal2 --tr 2 --manifest wide.tsv', "wide.tsv: found the columns .*expected one called 'file'")
sh('finetune_by_itself', 'finetune s --out o --preset tiny --target age --harmonise age', "harmonise: found 'age'")
sh('finetune_of_one_fold', 'finetune s --out o --preset tiny --target age --folds 1 --epochs 1', 'fold')
sh('finetune_of_too_many_folds', 'finetune s --out o --preset tiny --target age --folds 90 --epochs 1', 'fold')
sh('finetune_without_a_lost_group', 'finetune s --out o --preset tiny --target age --leave-out clinic', "clinic")
sh('forecast_of_nothing', 'forecast nowhere --out o --preset tiny', 'nowhere')
sh('forecast_of_too_much', 'forecast s --out o --preset tiny --context 400', 'context . horizon: found 420')
sh('forecast_with_two_beginnings', 'forecast s --out o --preset tiny --model m', 'not allowed with', 2)
sh('forecast_of_no_frames', 'forecast s --out o --preset tiny --horizon 0', 'whole number above 0', 2)
sh('compare_nothing', 'compare', 'RESULTS', 2)
sh('compare_what_is_not_there', 'compare nowhere', 'nowhere')
sh('compare_a_store', 'compare s', 's')
sh('networks_without_a_model', 'networks s --out o', '--model', 2)
sh('networks_of_a_lost_model', 'networks s --out o --model nothing', 'nothing')
sh('networks_of_a_lost_atlas', 'networks s --out o --model m --atlas brodmann', 'brodmann')
sh('networks_of_a_run_without_best', 'networks s --out o --model run/best', 'best')
sh('attention_without_a_contrast', 'attention s --out o --model m', '--contrast', 2)
sh('attention_of_a_lost_column', 'attention s --out o --model m --contrast mood', "mood")
sh('attention_of_many_groups', 'attention s --out o --model m --contrast word', 'group')
sh('attention_of_lost_groups', 'attention s --out o --model m --contrast group --groups a z', "z")
sh('perturb_of_a_lost_kind', 'perturb s --out o --model m --kind magic', 'invalid choice', 2)
sh('perturb_of_a_lost_value', 'perturb s --out o --model m --column group --source a --target z', "target: found 'z'")
sh('embed_without_a_model', 'embed s o.parquet', '--model', 2)
sh('embed_of_nothing', 'embed nowhere o.parquet --model m', 'nowhere')
sh('embed_of_a_lost_model', 'embed s o.parquet --model nothing', 'nothing')
sh('embed_of_a_model_without_weights', 'embed s o.parquet --model no_weights', 'model.safetensors')
sh('embed_of_half_a_config', 'embed s o.parquet --model no_json', 'config.json')
sh('embed_of_an_empty_store', 'embed empty o.parquet --model m', 'empty')
sh('embed_by_the_maximum', 'embed s o.parquet --model m --pooling max', 'invalid choice', 2)
sh('embed_into_a_file', 'embed s x.txt/o.parquet --model m', 'x.txt')
sh('embed_on_a_device_of_a_dream', 'embed s o.parquet --model m --device quantum', '--device: found', 2)
sh('embed_of_no_windows', 'embed s o.parquet --model m --batch-size 0', 'whole number above 0', 2)
sh('demo_of_no_epochs', 'demo --epochs 0', 'whole number above 0', 2)
