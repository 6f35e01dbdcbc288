-- Statements that write, disguised as reads or not at all. A line "--- title" begins one; {landing} is a directory that
-- readers may read from, {outside} one that they may not, {file} the database's own file.

--- delete
DELETE FROM applied

--- delete returning
DELETE FROM applied RETURNING *

--- insert
INSERT INTO kept VALUES (99, 'x')

--- insert returning
INSERT INTO kept VALUES (99, 'x') RETURNING id

--- insert or replace
INSERT OR REPLACE INTO kept VALUES (1, 'x')

--- update
UPDATE kept SET name = 'x'

--- update returning
UPDATE kept SET name = 'x' RETURNING *

--- truncate
TRUNCATE kept

--- merge
MERGE INTO kept USING (SELECT 1 AS id) AS new ON kept.id = new.id WHEN MATCHED THEN DELETE

--- drop table
DROP TABLE kept

--- drop schema
DROP SCHEMA log CASCADE

--- create table
CREATE TABLE made (a INTEGER)

--- create table as
CREATE TABLE made AS SELECT 1

--- create temporary table
CREATE TEMPORARY TABLE applied AS SELECT 1

--- create view
CREATE VIEW made AS SELECT 1

--- replace view
CREATE OR REPLACE VIEW model_metadata AS SELECT 1

--- temporary view that shadows a table
CREATE TEMPORARY VIEW kept AS SELECT 1

--- create macro
CREATE MACRO md5_number_lower(x) AS 0

--- create table macro
CREATE MACRO made() AS TABLE SELECT 1

--- create sequence
CREATE SEQUENCE made

--- create schema
CREATE SCHEMA made

--- create type
CREATE TYPE made AS ENUM ('a')

--- create index
CREATE INDEX made ON kept (id)

--- create secret
CREATE SECRET made (TYPE http, BEARER_TOKEN 'x')

--- create trigger
CREATE TRIGGER made AFTER INSERT ON kept FOR EACH STATEMENT INSERT INTO kept VALUES (99, 'x')

--- alter table
ALTER TABLE kept ADD COLUMN more INTEGER

--- rename table
ALTER TABLE kept RENAME TO gone

--- comment on
COMMENT ON TABLE kept IS 'x'

--- insert in a with
WITH made AS (INSERT INTO kept VALUES (99, 'x') RETURNING *) SELECT * FROM made

--- update in a with
WITH made AS (UPDATE kept SET name = 'x' RETURNING *) SELECT * FROM made

--- delete in a with
WITH made AS (DELETE FROM kept RETURNING *) SELECT * FROM made

--- merge in a with
WITH made AS (MERGE INTO kept USING (SELECT 1 AS id) AS new ON kept.id = new.id WHEN MATCHED THEN DELETE RETURNING *)
SELECT * FROM made

--- delete in a with that nobody reads
WITH made AS (DELETE FROM kept RETURNING *) SELECT 1

--- delete in a materialized with
WITH made AS MATERIALIZED (DELETE FROM kept RETURNING *) SELECT 1

--- delete in the second with
WITH fine AS (SELECT 1 AS a), made AS (DELETE FROM kept RETURNING *) SELECT * FROM fine, made

--- delete in a with in a subquery
SELECT * FROM (WITH made AS (DELETE FROM kept RETURNING *) SELECT * FROM made)

--- delete in a with in a scalar subquery
SELECT (WITH made AS (DELETE FROM kept RETURNING id) SELECT count(*) FROM made)

--- delete in a with in an exists
SELECT 1 WHERE EXISTS (WITH made AS (DELETE FROM kept RETURNING id) SELECT * FROM made)

--- delete in a with in a union
SELECT 1 AS id UNION ALL (WITH made AS (DELETE FROM kept RETURNING id) SELECT id FROM made)

--- delete in the from clause
SELECT * FROM (DELETE FROM kept RETURNING *)

--- copy to the landing zone
COPY kept TO '{landing}/made.csv'

--- copy elsewhere
COPY kept TO '{outside}/made.csv'

--- copy in a with, to the landing zone
WITH made AS (COPY (SELECT 1) TO '{landing}/made.csv') SELECT * FROM made

--- copy in a with that nobody reads
WITH made AS (COPY (SELECT 1) TO '{landing}/made.parquet') SELECT 1

--- copy in a with, partitioned
WITH made AS (COPY kept TO '{landing}/made' (FORMAT parquet, PARTITION_BY (name))) SELECT * FROM made

--- copy in a with, over a landed file
WITH made AS (COPY (SELECT 1) TO '{landing}/landed.csv') SELECT * FROM made

--- copy in a with in a subquery
SELECT (SELECT count(*) FROM (WITH made AS (COPY (SELECT 1) TO '{landing}/made.csv') SELECT * FROM made))

--- copy in a with, elsewhere
WITH made AS (COPY (SELECT 1) TO '{outside}/made.csv') SELECT * FROM made

--- copy in a with, over the database
WITH made AS (COPY (SELECT 1) TO '{file}') SELECT * FROM made

--- export
EXPORT DATABASE '{landing}/made'

--- explain analyze delete
EXPLAIN ANALYZE DELETE FROM kept

--- explain analyze copy
EXPLAIN ANALYZE COPY kept TO '{landing}/made.csv'

--- explain analyze copy in a with
EXPLAIN ANALYZE WITH made AS (COPY (SELECT 1) TO '{landing}/made.csv') SELECT * FROM made

--- explain with analyze as an option
EXPLAIN (ANALYZE) DELETE FROM kept

--- explain with analyze among the options
EXPLAIN (FORMAT json, ANALYZE) DELETE FROM kept

--- explain with analyze behind a comment
EXPLAIN /* only a plan */ ANALYZE DELETE FROM kept

--- explain and another statement
EXPLAIN SELECT 1; DELETE FROM kept

--- explain of a copy in a with
EXPLAIN WITH made AS (COPY (SELECT 1) TO '{landing}/made.csv') SELECT * FROM made

--- commit and delete
COMMIT; DELETE FROM kept; SELECT 1

--- rollback and delete
ROLLBACK; DELETE FROM kept; SELECT 1

--- commit, begin, delete, commit
COMMIT; BEGIN; DELETE FROM kept; COMMIT; SELECT 1

--- select, delete, select
SELECT 1; DELETE FROM kept; SELECT 2

--- delete behind a comment
SELECT 1; -- nothing to see
DELETE FROM kept

--- commit alone
COMMIT

--- a delete that begins with a comment
/* SELECT */ DELETE FROM kept

--- a delete that begins with a byte order mark
﻿DELETE FROM kept

--- prepare and execute
PREPARE made AS DELETE FROM kept; EXECUTE made

--- execute
EXECUTE made

--- a text run by query()
SELECT * FROM query('DELETE FROM kept')

--- a copy in a text run by query()
SELECT * FROM query('WITH made AS (COPY (SELECT 1) TO ''{landing}/made.csv'') SELECT * FROM made')

--- a table named by query_table()
SELECT * FROM query_table('(DELETE FROM kept RETURNING *)')

--- serialized sql
SELECT * FROM json_execute_serialized_sql(
    json_serialize_sql('WITH made AS (DELETE FROM kept RETURNING *) SELECT * FROM made')
)

--- pragma of serialized sql
PRAGMA json_execute_serialized_sql('x')

--- nextval
SELECT nextval('counter')

--- setval
SELECT setval('counter', 1000)

--- checkpoint
CHECKPOINT

--- force a checkpoint, as a table
SELECT * FROM force_checkpoint()

--- call a checkpoint
CALL force_checkpoint()

--- vacuum
VACUUM

--- analyze
ANALYZE

--- pragma
PRAGMA disable_checkpoint_on_shutdown

--- set
SET threads = 1

--- set global
SET GLOBAL enable_external_access = true

--- reset
RESET memory_limit

--- set variable
SET VARIABLE made = 1

--- use
USE log

--- attach
ATTACH '{landing}/made.duckdb' AS made

--- detach
DETACH features

--- install
INSTALL httpfs

--- load
LOAD httpfs

--- import
IMPORT DATABASE '{landing}'

--- copy a database
COPY FROM DATABASE features TO memory

--- switch the log on, as a table
SELECT * FROM enable_logging('QueryLog', storage := 'file', storage_path := '{landing}')

--- write to the log
SELECT write_log('x', level := 'ERROR', log_type := 'made')

--- empty the log
SELECT * FROM truncate_duckdb_logs()

--- switch profiling on, as a table
SELECT * FROM enable_profiling(format := 'json', save_location := '{landing}/made.json')

--- register a type of external resources
SELECT * FROM register_external_resource_type('made', kind := 'database', create_function := 'upper')

--- register an external resource
SELECT * FROM register_external_resource('made', 'made', MAP {'a': 'b'})

--- create an external resource
SELECT * FROM create_external_resource('made', resource_name := 'made')

--- pivot of a delete
PIVOT (WITH made AS (DELETE FROM kept RETURNING *) SELECT * FROM made) ON name USING count(*)

--- describe a delete
DESCRIBE DELETE FROM kept RETURNING *

--- summarize a delete
SUMMARIZE WITH made AS (DELETE FROM kept RETURNING *) SELECT * FROM made

--- select into
SELECT 1 INTO made
