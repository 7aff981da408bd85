"Makers of files that mean harm, or look as if they did: small on disk, made in a moment, by the tests and by `tools/fuzz.py`"
import base64
import gzip
import io
import os
import struct
import zipfile
import zlib

import nibabel as nib
import numpy as np

from brainlm.atlas import Parcellation
from brainlm.readers import Atlas

affine = np.array([[-8., 0, 0, 88], [0, 8, 0, -124], [0, 0, 8, -72], [0, 0, 0, 1]])
names = [f'{h}_{n}' for h in 'LR' for n in 'abcdef']

lab = np.zeros((23, 28, 24), 'int16')
for i,(x,y,z) in enumerate((x, y, z) for x in (5, 14) for y in (6, 13, 20) for z in (6, 14)):
    lab[x:x+4, y:y+4, z:z+4] = i+1

def cubes(folder):
    "An atlas of twelve cubes in a grid of 8 mm, and the same parcels on 120 vertices of each hemisphere"
    img = nib.Nifti1Image(lab, affine)
    img.set_sform(affine, 4)
    nib.save(img, folder/'atlas.nii.gz')
    B = nib.cifti2.BrainModelAxis.from_surface
    gray = B(np.arange(120), 300, 'CIFTI_STRUCTURE_CORTEX_LEFT')+B(np.arange(120), 300, 'CIFTI_STRUCTURE_CORTEX_RIGHT')
    axis = nib.cifti2.LabelAxis(['atlas'], [{i: ('?', (0, 0, 0, 1)) for i in range(13)}])
    nib.save(nib.Cifti2Image(np.repeat(np.arange(1, 13), 20)[None].astype('float32'), (axis, gray)),
             folder/'atlas.dlabel.nii')
    p = Parcellation.from_image(folder/'atlas.nii.gz', names=names, name='cubes')
    return Atlas(p, folder/'atlas.nii.gz', folder/'atlas.dlabel.nii')

def series(n_time=60, seed=0):
    return (1000+10*np.random.default_rng(seed).normal(size=(n_time, 12)).cumsum(0)).astype('float32')

def volume(file, n_time=60, **header):
    "A good image of the cubes; then fields of its header as they are given"
    img = nib.Nifti1Image(np.concatenate([np.zeros((1, n_time), 'float32'), series(n_time).T])[lab], affine)
    img.header.set_zooms((8, 8, 8, 2))
    img.header.set_xyzt_units('mm', 'sec')
    img.set_sform(affine, 4)
    img.set_qform(affine, 4)
    nib.save(img, file)
    if header: forge(file, **header)
    return file

def opened(file): return gzip.open if str(file).endswith(('gz', 'mgz')) else open

def forge(file, **fields):
    "Fields of a NIfTI header, whatever they were"
    with opened(file)(file, 'rb') as f: data = bytearray(f.read())
    h = nib.Nifti1Header(bytes(data[:348]), check=False)
    for k,v in fields.items(): h[k] = v
    data[:348] = h.binaryblock
    with opened(file)(file, 'wb') as f: f.write(bytes(data))
    return file

def cifti(file, n_time=60):
    B = nib.cifti2.BrainModelAxis.from_surface
    gray = B(np.arange(120), 300, 'CIFTI_STRUCTURE_CORTEX_LEFT')+B(np.arange(120), 300, 'CIFTI_STRUCTURE_CORTEX_RIGHT')
    axes = nib.cifti2.SeriesAxis(0, 2., n_time), gray
    nib.save(nib.Cifti2Image(np.repeat(series(n_time), 20, 1), axes), file)
    return file

def in_xml(file, change):
    "The XML of a CIFTI file, changed; the extension keeps its length, or grows"
    data = file.read_bytes()
    size = struct.unpack('<i', data[544:548])[0]
    xml = change(data[552:544+size].rstrip(b'\0'))
    room = -(-(len(xml)+8)//16)*16
    head = bytearray(data[:544])
    head[168:176] = struct.pack('<q', 544+room)
    rest = data[struct.unpack('<q', data[168:176])[0]:]
    file.write_bytes(bytes(head)+struct.pack('<ii', room, 32)+xml.ljust(room-8, b'\0')+rest)
    return file

def gifti(folder, n_time=20, change=None):
    "Both hemispheres; the left one changed"
    x = series(n_time)
    for h,own in (('L', x[:,:6]), ('R', x[:,6:])):
        v = np.zeros((n_time, 300), 'float32')
        v[:,:120] = np.repeat(own, 20, 1)
        arrays = [nib.gifti.GiftiDataArray(o, intent='NIFTI_INTENT_TIME_SERIES') for o in v]
        f = folder/f'sub-1_hemi-{h}_space-fsLR_bold.func.gii'
        nib.save(nib.GiftiImage(darrays=arrays), f)
        (folder/f.name.replace('.func.gii', '.json')).write_text('{"RepetitionTime": 2}')
    left = folder/'sub-1_hemi-L_space-fsLR_bold.func.gii'
    if change: left.write_bytes(change(left.read_bytes()))
    return left

def npy_bytes(header, data=b''):
    "A NumPy file with this header, true or not"
    text = (header if isinstance(header, str) else repr(header)).encode('latin1')
    text = text.ljust(-(-(len(text)+11)//64)*64+53)+b'\n'
    return b'\x93NUMPY\1\0'+struct.pack('<H', len(text))+text+data

def npy(file, header, data=b''):
    file.write_bytes(npy_bytes(header, data))
    return file

def zeros(blocks, wbits=-15):
    "A stream that unpacks to many megabytes of zeros: one of them, packed, many times (raw or zlib)"
    c = zlib.compressobj(9, zlib.DEFLATED, -15)
    one,n = c.compress(bytes(2**20))+c.flush(zlib.Z_FULL_FLUSH),blocks<<20
    raw = one*blocks+b'\3\0'
    return b'\x78\xda'+raw+struct.pack('>I', n%65521<<16 | 1) if wbits==15 else raw

def behind(first, blocks):
    "Bytes, then many megabytes of zeros: a raw deflate stream, and the CRC of what it unpacks to"
    c = zlib.compressobj(9, zlib.DEFLATED, -15)
    start,crc = c.compress(first)+c.flush(zlib.Z_FULL_FLUSH),zlib.crc32(first)
    for _ in range(blocks): crc = zlib.crc32(bytes(2**20), crc)
    return start+zeros(blocks),crc

def head(descr='<f8', shape=(60, 12), order=False): return dict(descr=descr, fortran_order=order, shape=shape)

# The corpus: {name: (family, maker)}; a maker takes a folder that holds the atlas, and gives the file

corpus = {}

def hostile(family):
    def enter(f):
        corpus[f.__name__] = family,f
        return f
    return enter

# NumPy

@hostile('forged NumPy header')
def npy_of_objects(d): return npy(d/'sub-1.npy', head('|O'), b'\x80\x04K\x01.'*720)

@hostile('forged NumPy header')
def npy_of_records(d): return npy(d/'sub-1.npy', head([('a', '<f8'), ('b', '|O')]), bytes(60*12*16))

@hostile('forged NumPy header')
def npy_of_plain_records(d): return npy(d/'sub-1.npy', head([('a', '<f8'), ('b', '<f8')]), bytes(60*12*16))

@hostile('forged NumPy header')
def npy_of_arrays_in_arrays(d): return npy(d/'sub-1.npy', head(('<f8', (12,)), (60,)), bytes(60*12*8))

@hostile('forged NumPy header')
def npy_of_overlapping_objects(d):
    descr = "{'names': ['a', 'b'], 'formats': ['|O', '<f8'], 'offsets': [0, 0], 'itemsize': 8}"
    return npy(d/'sub-1.npy', "{'descr': %s, 'fortran_order': False, 'shape': (60, 12)}" % descr, bytes(60*12*8))

@hostile('forged NumPy header')
def npy_of_strings(d): return npy(d/'sub-1.npy', head('<U536870911'), bytes(5760))

@hostile('forged NumPy header')
def npy_of_wide_floats(d): return npy(d/'sub-1.npy', head('<f1000000'), bytes(5760))

@hostile('forged NumPy header')
def npy_of_complex_numbers(d): return npy(d/'sub-1.npy', head('<c16'), bytes(60*12*16))

@hostile('forged NumPy header')
def npy_of_dates(d): return npy(d/'sub-1.npy', head('<M8[ns]'), bytes(60*12*8))

@hostile('forged NumPy header')
def npy_with_code_in_its_header(d):
    return npy(d/'sub-1.npy', "{'descr': '<f8', 'fortran_order': False, 'shape': (__import__('os').system('true'), 12)}")

@hostile('forged NumPy header')
def npy_with_a_deep_header(d): return npy(d/'sub-1.npy', '('*9000+')'*9000)

@hostile('forged NumPy header')
def npy_with_minus_signs(d):
    return npy(d/'sub-1.npy', "{'descr': '<f8', 'fortran_order': False, 'shape': (%s1, 12)}" % ('-'*9000))

@hostile('shape that lies')
def npy_longer_than_its_file(d): return npy(d/'sub-1.npy', head(shape=(10**9, 12)), bytes(5760))

@hostile('shape that lies')
def npy_of_more_than_there_are_addresses(d): return npy(d/'sub-1.npy', head(shape=(2**62, 12)), bytes(5760))

@hostile('shape that lies')
def npy_of_negative_length(d): return npy(d/'sub-1.npy', head(shape=(-1, 12)), bytes(5760))

@hostile('shape that lies')
def npy_whose_product_is_zero(d): return npy(d/'sub-1.npy', head(shape=(2**61, 8)), bytes(5760))

@hostile('shape that lies')
def npy_with_a_header_of_4_gb(d):
    (d/'sub-1.npy').write_bytes(b'\x93NUMPY\2\0'+struct.pack('<I', 2**32-1)+b'{'*1000)
    return d/'sub-1.npy'

def zipped(d, members, file='sub-1.npz'):
    "An archive by hand: (name, first bytes, megabytes of zeros behind them)"
    body,ends = b'',b''
    for name,first,blocks in members:
        data,crc = behind(first, blocks)
        about = struct.pack('<HHHHHIIIHH', 20, 0, 8, 0, 33, crc, len(data), len(first)+(blocks<<20), len(name), 0)
        ends += b'PK\1\2\x14\0'+about+struct.pack('<HHHII', 0, 0, 0, 0, len(body))+name.encode()
        body += b'PK\3\4'+about+name.encode()+data
    end = struct.pack('<HHHHIIH', 0, 0, len(members), len(members), len(ends), len(body), 0)
    (d/file).write_bytes(body+ends+b'PK\5\6'+end)
    return d/file

@hostile('bomb')
def npz_of_300_mb_in_300_kb(d): return zipped(d, [('bold.npy', npy_bytes(head(shape=(2**20*300//96, 12))), 300)])

@hostile('bomb')
def npz_with_a_bomb_beside_the_series(d):
    first = npy_bytes(head(shape=(60, 12)), series().astype('<f8').tobytes())
    return zipped(d, [('bold.npy', first, 0), ('other.npy', npy_bytes(head(shape=(2**17*300,))), 300)])

@hostile('shape that lies')
def npz_longer_than_its_member(d): return zipped(d, [('bold.npy', npy_bytes(head(shape=(10**9, 12))), 1)])

@hostile('shape that lies')
def npz_shorter_than_its_member(d): return zipped(d, [('bold.npy', npy_bytes(head(shape=(60, 12))), 300)])

@hostile('forged NumPy header')
def npz_of_objects(d): return zipped(d, [('bold.npy', npy_bytes(head('|O')), 1)])

@hostile('damage')
def npz_that_says_another_length(d):
    f = zipped(d, [('bold.npy', npy_bytes(head(shape=(60, 12)), series().astype('<f8').tobytes()), 0)])
    data = f.read_bytes()
    at = data.rfind(b'PK\1\2')
    f.write_bytes(data[:at+24]+struct.pack('<I', 2**31)+data[at+28:])
    return f

@hostile('damage')
def npz_with_a_thousand_names(d):
    with zipfile.ZipFile(d/'sub-1.npz', 'w') as z:
        for i in range(1500): z.writestr(f'{i}.npy', b'')
    return d/'sub-1.npz'

@hostile('damage')
def npz_under_a_password(d):
    f = zipped(d, [('bold.npy', npy_bytes(head(shape=(60, 12)), bytes(5760)), 0)])
    data = bytearray(f.read_bytes())
    for at,step in ((0, 6), (data.rfind(b'PK\1\2'), 8)): data[at+step] |= 1
    f.write_bytes(bytes(data))
    return f

# gzip and volumes

def huge_gz(file, first, blocks):
    data,crc = behind(first, blocks)
    size = len(first)+(blocks<<20)
    file.write_bytes(b'\x1f\x8b\x08\0\0\0\0\0\2\xff'+data+struct.pack('<II', crc, size & 0xffffffff))
    return file

def nifti_head(shape, dtype='float32', **fields):
    h = nib.Nifti1Header()
    h.set_data_dtype(dtype)
    h.set_data_shape((2,)*len(shape))
    h['dim'][1:len(shape)+1] = shape
    h['pixdim'][1:5] = 8, 8, 8, 2
    h['vox_offset'] = 352
    h['magic'] = b'n+1'
    h.set_sform(affine, 4)
    h.set_qform(affine, 4)
    h.set_xyzt_units('mm', 'sec')
    for k,v in fields.items(): h[k] = v
    return h.binaryblock+bytes(4)

@hostile('bomb')
def gz_of_300_mb_of_zeros(d): return huge_gz(d/'sub-1_bold.nii.gz', nifti_head((64, 64, 64, 300)), 300)

@hostile('bomb')
def gz_of_text_without_a_line(d): return huge_gz(d/'sub-1_timeseries.tsv', b'0', 300)

@hostile('bomb')
def gz_of_a_table_of_zeros(d):
    c = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = (b'\t'.join([b'0']*12)+b'\n')*40000
    one = c.compress(block)+c.flush(zlib.Z_FULL_FLUSH)
    f = d/'sub-1.txt.gz'
    f.write_bytes(b'\x1f\x8b\x08\0\0\0\0\0\2\xff'+one*300+b'\3\0'+bytes(8))
    return f

@hostile('shape that lies')
def nifti_of_a_huge_volume(d):
    f = d/'sub-1_bold.nii'
    f.write_bytes(nifti_head((32767, 32767, 32767, 2))+bytes(1000))
    return f

@hostile('shape that lies')
def gz_of_a_huge_volume(d): return huge_gz(d/'sub-1_bold.nii.gz', nifti_head((2000, 2000, 2000, 2), 'uint8'), 16)

@hostile('shape that lies')
def nifti_of_32767_frames(d):
    f = d/'sub-1_bold.nii'
    f.write_bytes(nifti_head((23, 28, 24, 32767))+bytes(100000))
    return f

@hostile('shape that lies')
def nifti_of_negative_length(d): return volume(d/'sub-1_bold.nii', dim=[4, 23, 28, 24, -60, 1, 1, 1])

@hostile('shape that lies')
def nifti_of_no_length(d): return volume(d/'sub-1_bold.nii', dim=[4, 23, 28, 0, 60, 1, 1, 1])

@hostile('shape that lies')
def nifti_of_77_dimensions(d): return volume(d/'sub-1_bold.nii', dim=[77, 23, 28, 24, 60, 1, 1, 1])

@hostile('shape that lies')
def nifti_whose_data_begin_far_away(d): return volume(d/'sub-1_bold.nii.gz', vox_offset=2e9)

@hostile('shape that lies')
def nifti_whose_data_begin_nowhere(d): return volume(d/'sub-1_bold.nii', vox_offset=np.nan)

@hostile('forged header')
def nifti_of_colours(d): return volume(d/'sub-1_bold.nii', datatype=128, bitpix=24)

@hostile('forged header')
def nifti_of_complex_numbers(d): return volume(d/'sub-1_bold.nii', datatype=32, bitpix=64)

@hostile('forged header')
def nifti_of_an_unknown_type(d): return volume(d/'sub-1_bold.nii', datatype=9999)

@hostile('forged header')
def nifti_of_unknown_units(d): return volume(d/'sub-1_bold.nii', xyzt_units=255)

@hostile('forged header')
def nifti_whose_affine_is_flat(d): return volume(d/'sub-1_bold.nii', srow_x=0, srow_y=0, srow_z=0, qform_code=0)

@hostile('forged header')
def nifti_whose_affine_is_nan(d): return volume(d/'sub-1_bold.nii', srow_x=np.nan, qform_code=0)

@hostile('forged header')
def nifti_whose_affine_is_infinite(d): return volume(d/'sub-1_bold.nii', srow_x=3e38, srow_y=-3e38, qform_code=0)

@hostile('forged header')
def nifti_whose_slope_is_infinite(d): return volume(d/'sub-1_bold.nii', scl_slope=np.inf)

@hostile('forged header')
def nifti_whose_repetition_time_is_nan(d): return volume(d/'sub-1_bold.nii', pixdim=[1, 8, 8, 8, np.nan, 1, 1, 1])

@hostile('forged header')
def nifti_with_a_mask_of_many_volumes(d):
    f = volume(d/'sub-1_space-MNI152_desc-preproc_bold.nii.gz')
    huge_gz(d/'sub-1_space-MNI152_desc-brain_mask.nii.gz', nifti_head((23, 28, 24, 32767), 'float64'), 1)
    return f

@hostile('damage')
def nifti_cut_short(d):
    f = volume(d/'sub-1_bold.nii.gz')
    f.write_bytes(f.read_bytes()[:20000])
    return f

@hostile('damage')
def nifti_with_a_byte_turned(d):
    f = volume(d/'sub-1_bold.nii.gz')
    data = bytearray(f.read_bytes())
    data[len(data)//2] ^= 255
    f.write_bytes(bytes(data))
    return f

@hostile('shape that lies')
def mgh_of_a_huge_volume(d):
    img = nib.MGHImage(np.ones((23, 28, 24, 10), 'float32'), affine)
    f = d/'sub-1_space-MNI152_bold.mgh'
    nib.save(img, f)
    data = bytearray(f.read_bytes())
    data[4:20] = struct.pack('>4i', 20000, 20000, 20000, 100)
    f.write_bytes(bytes(data))
    return f

def afni(file, dims='23 28 24', frames=20, **other):
    "HEAD and BRIK as AFNI writes them"
    to = affine[:3]*[[-1], [-1], [1]]
    rows = [('string', 'TYPESTRING', '3DIM_HEAD_ANAT'), ('integer', 'DATASET_RANK', f'3 {frames} 0 0 0 0 0 0'),
            ('integer', 'DATASET_DIMENSIONS', f'{dims} 0 0'), ('integer', 'BRICK_TYPES', '3 '*min(frames, 100)),
            ('float', 'BRICK_FLOAT_FACS', '0 '*min(frames, 100)), ('float', 'DELTA', '8 8 8'),
            ('float', 'ORIGIN', ' '.join(map(str, to[:,3]))), ('integer', 'ORIENT_SPECIFIC', '0 3 4'),
            ('float', 'IJK_TO_DICOM_REAL', ' '.join(map(str, to.ravel()))),
            ('integer', 'TAXIS_NUMS', f'{frames} 0 77002'), ('float', 'TAXIS_FLOATS', '0 2 0 0 0'),
            ('string', 'BYTEORDER_STRING', 'LSB_FIRST'), ('string', 'TEMPLATE_SPACE', 'MNI')]
    text = ''
    for kind,name,v in rows:
        v = other.get(name, v)
        n = len(v)+1 if kind=='string' else len(v.split())
        text += f'\ntype = {kind}-attribute\nname = {name}\ncount = {n}\n'+(f"'{v}~\n" if kind=='string' else f'{v}\n')
    file.write_text(text)
    file.with_suffix('.BRIK').write_bytes(bytes(23*28*24*4*20))
    return file

@hostile('shape that lies')
def afni_of_a_huge_volume(d): return afni(d/'sub-1_bold+tlrc.HEAD', '20000 20000 20000')

@hostile('shape that lies')
def afni_of_a_billion_frames(d): return afni(d/'sub-1_bold+tlrc.HEAD', frames=10**9)

@hostile('forged header')
def afni_with_words_for_numbers(d): return afni(d/'sub-1_bold+tlrc.HEAD', DATASET_DIMENSIONS='many more of them')

@hostile('forged header')
def afni_with_a_short_rank(d): return afni(d/'sub-1_bold+tlrc.HEAD', DATASET_RANK='3')

# CIFTI and GIfTI

laughs = b'<!DOCTYPE lolz [<!ENTITY a "'+b'ha'*50+b'">'+b''.join(
    b'<!ENTITY %c "%s">' % (98+i, (b'&%c;' % (97+i))*10) for i in range(8))+b']>'
outside = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'

def after_declaration(xml, what):
    at = xml.find(b'?>')+2 if xml.lstrip().startswith(b'<?xml') else 0
    return xml[:at]+what+xml[at:]

@hostile('XML')
def cifti_of_entities(d):
    change = lambda x: after_declaration(x, laughs).replace(b'<Matrix>', b'<Matrix><MetaData><MD><Name>&i;</Name><Value>x</Value></MD></MetaData>')
    return in_xml(cifti(d/'sub-1_bold.dtseries.nii'), change)

@hostile('XML')
def cifti_of_an_outside_entity(d):
    change = lambda x: after_declaration(x, outside).replace(b'<Matrix>', b'<Matrix><MetaData><MD><Name>&a;</Name><Value>x</Value></MD></MetaData>')
    return in_xml(cifti(d/'sub-1_bold.dtseries.nii'), change)

@hostile('XML')
def cifti_that_is_no_xml(d): return in_xml(cifti(d/'sub-1_bold.dtseries.nii'), lambda x: x[:len(x)//2])

@hostile('XML')
def cifti_nested_deeply(d):
    return in_xml(cifti(d/'sub-1_bold.dtseries.nii'), lambda x: x.replace(b'<Matrix>', b'<Matrix>'*50000))

@hostile('shape that lies')
def cifti_of_many_points(d):
    change = lambda x: x.replace(b'NumberOfSeriesPoints="60"', b'NumberOfSeriesPoints="1000000000000"')
    return in_xml(cifti(d/'sub-1_bold.dtseries.nii'), change)

@hostile('shape that lies')
def cifti_of_many_vertices(d):
    change = lambda x: x.replace(b'IndexCount="120"', b'IndexCount="10000000000"')
    return in_xml(cifti(d/'sub-1_bold.dtseries.nii'), change)

@hostile('shape that lies')
def cifti_of_a_large_surface(d):
    change = lambda x: x.replace(b'SurfaceNumberOfVertices="300"', b'SurfaceNumberOfVertices="30000000000"')
    return in_xml(cifti(d/'sub-1_bold.dtseries.nii'), change)

@hostile('shape that lies')
def cifti_with_words_for_numbers(d):
    return in_xml(cifti(d/'sub-1_bold.dtseries.nii'), lambda x: x.replace(b'IndexCount="120"', b'IndexCount="many"'))

@hostile('shape that lies')
def cifti_with_a_long_extension(d):
    f = cifti(d/'sub-1_bold.dtseries.nii')
    data = bytearray(f.read_bytes())
    data[544:548] = struct.pack('<i', 2**31-16)
    f.write_bytes(bytes(data))
    return f

@hostile('bomb')
def cifti_gz_with_a_long_extension(d):
    data = bytearray(cifti(d/'sub-1_bold.dtseries.nii').read_bytes())
    data[168:176] = struct.pack('<q', 544+2**30)
    data[544:548] = struct.pack('<i', 2**30)
    (d/'sub-1_bold.dtseries.nii').unlink()
    return huge_gz(d/'sub-1_bold.dtseries.nii.gz', bytes(data), 300)

@hostile('XML')
def gifti_of_entities(d):
    change = lambda x: x.replace(x[x.find(b'<!DOCTYPE'):x.find(b'>', x.find(b'<!DOCTYPE'))+1], laughs).replace(
        b'<MetaData', b'<MetaData><MD><Name>&i;</Name><Value>x</Value></MD></MetaData><MetaData', 1)
    return gifti(d, change=change)

@hostile('XML')
def gifti_of_an_outside_entity(d):
    change = lambda x: x.replace(x[x.find(b'<!DOCTYPE'):x.find(b'>', x.find(b'<!DOCTYPE'))+1], outside).replace(
        b'<MetaData', b'<MetaData><MD><Name>&a;</Name><Value>x</Value></MD></MetaData><MetaData', 1)
    return gifti(d, change=change)

def external(x):
    return x.replace(b'Encoding="GZipBase64Binary"', b'Encoding="ExternalFileBinary"').replace(
        b'ExternalFileName=""', b'ExternalFileName="/etc/passwd"')

@hostile('other files')
def gifti_that_names_another_file(d): return gifti(d, change=external)

@hostile('bomb')
def gifti_of_300_mb(d):
    bomb = base64.b64encode(zeros(300, 15))
    def change(x):
        a,b = x.find(b'<Data>')+6,x.find(b'</Data>')
        return x[:a]+bomb+x[b:]
    return gifti(d, change=change)

@hostile('shape that lies')
def gifti_of_many_vertices(d): return gifti(d, change=lambda x: x.replace(b'Dim0="300"', b'Dim0="30000000000"'))

@hostile('shape that lies')
def gifti_with_words_for_numbers(d): return gifti(d, change=lambda x: x.replace(b'Dim0="300"', b'Dim0="many"'))

@hostile('shape that lies')
def gifti_of_an_unknown_type(d):
    return gifti(d, change=lambda x: x.replace(b'NIFTI_TYPE_FLOAT32', b'NIFTI_TYPE_SOMETHING'))

@hostile('damage')
def gifti_that_is_not_base64(d):
    def change(x):
        a,b = x.find(b'<Data>')+6,x.find(b'</Data>')
        return x[:a]+b'?'*100+x[b:]
    return gifti(d, change=change)

@hostile('damage')
def gifti_cut_short(d): return gifti(d, change=lambda x: x[:len(x)//2])

# HDF5 and MATLAB

def hdf5(d, fill):
    import h5py
    with h5py.File(d/'sub-1.h5', 'w') as h:
        h.attrs['TR'] = 2.
        fill(h, h5py)
    return d/'sub-1.h5'

@hostile('shape that lies')
def hdf5_of_a_terabyte_never_written(d):
    return hdf5(d, lambda h,_: h.create_dataset('x', (10**10, 12), 'f8', chunks=(1000, 12)))

@hostile('bomb')
def hdf5_of_300_mb_in_300_kb(d):
    def fill(h, _):
        x = h.create_dataset('x', (3*2**20, 12), 'f8', chunks=(2**20, 12), compression='gzip', compression_opts=9)
        for i in range(3): x.id.write_direct_chunk((i*2**20, 0), zeros(96, 15))
    return hdf5(d, fill)

@hostile('other files')
def hdf5_whose_numbers_lie_elsewhere(d):
    secret = d/'secret.bin'
    secret.write_bytes(series().astype('<f4').tobytes())
    fill = lambda h,_: h.create_dataset('x', (60, 12), 'f4', external=[(str(secret), 0, 60*12*4)])
    return hdf5(d, fill)

@hostile('other files')
def hdf5_that_links_to_another_file(d):
    import h5py
    with h5py.File(d/'other.h5', 'w') as o: o['x'] = series()
    def fill(h, h5py): h['x'] = h5py.ExternalLink(str(d/'other.h5'), '/x')
    return hdf5(d, fill)

@hostile('other files')
def hdf5_whose_time_lies_in_another_file(d):
    import h5py
    with h5py.File(d/'other.h5', 'w') as o: o['tr'] = 3.
    def fill(h, h5py):
        h['x'] = series()
        h['tr'] = h5py.ExternalLink(str(d/'other.h5'), '/tr')
    return hdf5(d, fill)

@hostile('other files')
def hdf5_made_of_parts_of_others(d):
    import h5py
    with h5py.File(d/'other.h5', 'w') as o: o['x'] = series()
    def fill(h, h5py):
        layout = h5py.VirtualLayout((60, 12), 'f4')
        layout[:] = h5py.VirtualSource(str(d/'other.h5'), 'x', (60, 12))
        h.create_virtual_dataset('x', layout)
    return hdf5(d, fill)

@hostile('forged header')
def hdf5_whose_time_is_an_array(d):
    def fill(h, _):
        h['x'] = series()
        h.create_dataset('tr', (10**10,), 'f8', chunks=(1000,))
        del h.attrs['TR']
    return hdf5(d, fill)

@hostile('damage')
def hdf5_cut_short(d):
    f = hdf5(d, lambda h,_: h.create_dataset('x', data=series(2000)))
    f.write_bytes(f.read_bytes()[:3000])
    return f

@hostile('damage')
def hdf5_of_bytes_turned(d):
    f = hdf5(d, lambda h,_: h.create_dataset('x', data=series(2000), chunks=(100, 12), compression='gzip'))
    data = bytearray(f.read_bytes())
    for i in range(200, len(data), 97): data[i] ^= 255
    f.write_bytes(bytes(data))
    return f

@hostile('other files')
def hdf5_that_runs_in_a_circle(d):
    def fill(h, h5py):
        h['x'] = series()
        g = h.create_group('g')
        g['up'] = h['/']
        g['soft'] = h5py.SoftLink('/g/soft')
    return hdf5(d, fill)

def mat_element(kind, data): return struct.pack('<II', kind, len(data))+data+bytes(-len(data)%8)

def mat5(d, *elements):
    f = d/'sub-1.mat'
    f.write_bytes(b'MATLAB 5.0 MAT-file'.ljust(124)+struct.pack('<HH', 0x100, 0x4d49)+b''.join(elements))
    return f

def mat_matrix(name, dims, data, said=None):
    flags = mat_element(6, struct.pack('<II', 6, 0))
    body = flags+mat_element(5, struct.pack(f'<{len(dims)}i', *dims))+mat_element(1, name)
    body += struct.pack('<II', 9, len(data) if said is None else said)+data+bytes(-len(data)%8)
    return mat_element(14, body)

@hostile('bomb')
def mat_of_300_mb(d):
    n = 300<<20
    first = mat_matrix(b'x', (n//96, 12), b'')
    first = struct.pack('<II', 14, len(first)-8+n)+first[8:-8]+struct.pack('<II', 9, n)
    data = b'\x78\xda'+behind(first, 300)[0]+bytes(4)
    return mat5(d, struct.pack('<II', 15, len(data))+data)

@hostile('shape that lies')
def mat_of_a_huge_matrix(d): return mat5(d, mat_matrix(b'x', (2**30, 12), bytes(5760)))

@hostile('shape that lies')
def mat_of_a_long_element(d): return mat5(d, mat_matrix(b'x', (60, 12), bytes(5760), 2**31-8))

@hostile('shape that lies')
def mat_of_negative_size(d): return mat5(d, mat_matrix(b'x', (-60, 12), bytes(5760)))

@hostile('damage')
def mat_cut_short(d):
    import scipy.io
    scipy.io.savemat(d/'sub-1.mat', dict(x=series(), TR=2.), do_compression=True)
    (d/'sub-1.mat').write_bytes((d/'sub-1.mat').read_bytes()[:900])
    return d/'sub-1.mat'

# Text and JSON

def text(d, words, name='sub-1_timeseries.tsv'):
    (d/name).write_bytes(words if isinstance(words, bytes) else words.encode())
    return d/name

@hostile('text')
def csv_of_one_line_of_60_mb(d): return text(d, b'1.5,'*15_000_000, 'sub-1_timeseries.csv')

@hostile('text')
def csv_of_one_word_of_60_mb(d): return text(d, b'a'*60_000_000, 'sub-1_timeseries.csv')

@hostile('text')
def csv_whose_second_line_is_long(d):
    return text(d, '\t'.join(names)+'\n'+'1.5\t'*2_000_000, 'sub-1_timeseries.tsv')

@hostile('text')
def csv_with_an_open_quote(d):
    return text(d, '\t'.join(names)+'\n'+'"'+'\n'.join('\t'.join(['1']*12) for _ in range(100000)))

@hostile('text')
def csv_of_ragged_lines(d):
    return text(d, '\t'.join(names)+'\n'+'\n'.join('\t'.join(['1']*(1+i%40)) for i in range(1000)))

@hostile('text')
def csv_of_huge_numbers(d):
    return text(d, '\t'.join(names)+'\n'+('\t'.join(['1'*5000]*12)+'\n')*100)

@hostile('text')
def csv_with_zero_bytes_later(d):
    return text(d, ('\t'.join(names)+'\n'+('\t'.join(['1.5']*12)+'\n')*200).encode()+b'\0'*5000)

@hostile('text')
def csv_of_utf16_cut_in_a_letter(d): return text(d, '\t'.join(names).encode('utf-16')[:-1])

@hostile('text')
def csv_of_only_commas(d): return text(d, b','*5_000_000, 'sub-1_timeseries.csv')

def sidecar(d, words):
    text(d, '\t'.join(names)+'\n'+'\n'.join('\t'.join(f'{v:.3f}' for v in r) for r in series()))
    text(d, words, 'sub-1_timeseries.json')
    return d/'sub-1_timeseries.tsv'

@hostile('JSON')
def json_nested_deeply(d): return sidecar(d, '['*200000)

@hostile('JSON')
def json_of_a_long_number(d): return sidecar(d, '{"RepetitionTime": '+'9'*100000+'}')

@hostile('JSON')
def json_of_infinity(d): return sidecar(d, '{"RepetitionTime": 1e999}')

@hostile('JSON')
def json_of_a_long_list(d): return sidecar(d, '{"RepetitionTime": ['+'2,'*300000+'2]}')

@hostile('JSON')
def json_that_is_not_utf8(d): return sidecar(d, b'{"RepetitionTime": 2, "x": "\xff\xfe\xfa"}')

# Arrow

def arrow(d, change=None, compression=None):
    import pyarrow as pa
    t = pa.table(dict(Raw_Recording=[o.tolist() for o in (series(), series(60, 1))], Filename=['sub-1', 'sub-2']))
    buf = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(buf, t.schema, options=options) as w: w.write_table(t)
    data = bytearray(buf.getvalue())
    if change: change(data)
    (d/'arrow').mkdir()
    (d/'arrow'/'data-00000-of-00001.arrow').write_bytes(bytes(data))
    return d/'arrow'

@hostile('shape that lies')
def arrow_whose_offsets_lie(d):
    at = np.arange(61, dtype='<i4')*12
    def change(data):
        where = bytes(data).find(at.tobytes())
        data[where+4:where+8] = struct.pack('<i', 2**30)
        data[where+8:where+12] = struct.pack('<i', -2**30)
    return arrow(d, change)

@hostile('bomb')
def arrow_of_300_mb(d):
    import pyarrow as pa
    n = 75*2**19
    flat = pa.array(np.zeros(n), pa.float64())
    rows = pa.ListArray.from_arrays(pa.array(np.arange(0, n+1, n//15, dtype='int32')), flat)
    cell = pa.ListArray.from_arrays(pa.array([0, 15], pa.int32()), rows)
    t = pa.table(dict(Raw_Recording=cell, Filename=['sub-1']))
    (d/'arrow').mkdir()
    f = d/'arrow'/'data-00000-of-00001.arrow'
    packed = pa.ipc.IpcWriteOptions(compression='zstd')
    with pa.OSFile(str(f), 'wb') as o, pa.ipc.new_stream(o, t.schema, options=packed) as w: w.write_table(t)
    return d/'arrow'

@hostile('damage')
def arrow_of_bytes_turned(d):
    def change(data):
        for i in range(100, len(data), 211): data[i] ^= 255
    return arrow(d, change)

# Names

@hostile('names')
def a_name_that_is_a_formula(d): return text(d, 'no table', "=cmd|'calc'!A0_timeseries.tsv")

@hostile('names')
def a_name_of_html(d): return text(d, 'no table', 'sub-1_<img src=x onerror=alert(1)>_timeseries.tsv')

@hostile('names')
def a_name_with_a_line_break(d): return text(d, 'no table', 'sub-1\n2\t_timeseries.tsv')

# Pipes and devices, where a file is expected

def pipe(file):
    os.mkfifo(file)
    return file

def endless(file):
    os.symlink('/dev/zero', file)
    return file

@hostile('pipe or device')
def npy_that_is_a_pipe(d): return pipe(d/'sub-1.npy')

@hostile('pipe or device')
def npy_that_is_a_device(d): return endless(d/'sub-1.npy')

@hostile('pipe or device')
def json_that_is_a_pipe(d):
    f = sidecar(d, '')
    f.with_suffix('.json').unlink()
    pipe(f.with_suffix('.json'))
    return f

@hostile('pipe or device')
def json_that_is_a_device(d):
    f = sidecar(d, '')
    f.with_suffix('.json').unlink()
    endless(f.with_suffix('.json'))
    return f

@hostile('pipe or device')
def confounds_that_are_a_pipe(d):
    pipe(d/'sub-1_task-rest_desc-confounds_timeseries.tsv')
    return volume(d/'sub-1_task-rest_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz')

@hostile('pipe or device')
def gifti_whose_other_side_is_a_pipe(d):
    f = gifti(d)
    other = d/f.name.replace('hemi-L', 'hemi-R')
    other.unlink()
    pipe(other)
    return f

@hostile('pipe or device')
def brik_that_is_a_pipe(d):
    f = afni(d/'sub-1_bold+tlrc.HEAD')
    f.with_suffix('.BRIK').unlink()
    pipe(f.with_suffix('.BRIK'))
    return f

# What goes on and on

@hostile('bomb')
def npz_packed_with_bzip2(d):
    with zipfile.ZipFile(d/'sub-1.npz', 'w', zipfile.ZIP_BZIP2) as z:
        z.writestr('bold.npy', npy_bytes(head(shape=(2**20*46//96, 12)))+bytes(46<<20))
    return d/'sub-1.npz'

@hostile('bomb')
def gz_with_a_name_of_8_mb(d):
    f = volume(d/'sub-1_bold.nii.gz')
    raw = gzip.decompress(f.read_bytes())
    c = zlib.compressobj(1, zlib.DEFLATED, -15)
    start = b'\x1f\x8b\x08\x08\0\0\0\0\0\xff'+b'a'*8_000_000+b'\0'
    f.write_bytes(start+c.compress(raw)+c.flush()+struct.pack('<II', zlib.crc32(raw), len(raw)))
    return f

@hostile('bomb')
def hdf5_of_groups_in_groups(d):
    def fill(h, _):
        for _ in range(300): h = h.create_group('g')
        h['x'] = series()
    return hdf5(d, fill)

def in_matrix(d, old, new): return in_xml(cifti(d/'sub-1_bold.dtseries.nii'), lambda x: x.replace(old, new))

@hostile('XML')
def cifti_with_a_long_comment(d): return in_matrix(d, b'<Matrix>', b'<!--'+b'a'*9_000_000+b'--><Matrix>')

@hostile('XML')
def cifti_with_a_long_word(d): return in_matrix(d, b'<Matrix>', b'<Matrix a="'+b'b'*9_000_000+b'">')

@hostile('forged header')
def hdf5_whose_time_is_a_long_word(d):
    def fill(h, _):
        h['x'] = series()
        h['tr'] = '9'*10**6
        del h.attrs['TR']
    return hdf5(d, fill)

@hostile('damage')
def arrow_whose_names_are_no_text(d):
    def change(data): data[:] = bytes(data).replace(b'Filename', b'File\xff\xfe\xfa\xfb')
    return arrow(d, change)
