-- A worker may be started by the scheduler of a cluster: the job that it is there, and what the cluster last said about it.
-- NULL: a process of this machine.

ALTER TABLE runs ADD COLUMN job TEXT;
