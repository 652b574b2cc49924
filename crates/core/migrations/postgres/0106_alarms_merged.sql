-- A cluster's merger takes those with it that became a part of it before: they must be found without looking at all.
CREATE INDEX clusters_by_merger ON clusters (tenant, merged_into) WHERE merged_into IS NOT NULL;
