import json,time
from pathlib import Path
from ctfed.report.many import write_many_report
from server.many.tables import table_files
t=time.time()
print(write_many_report(json.load(open('.probe.json')), Path('/tmp/many_out'), table_files), time.time()-t)
