-- Every call that concerns the key, its ciphertext or the trail, and what is found on
-- it, as unlockctl audit --role finds it from records alone. Filled in by the templates.
CREATE OR REPLACE VIEW audit AS
WITH
-- Each record once. Of resources two matter at most.
records AS (
  SELECT * FROM (
    SELECT
      CAST(from_iso8601_timestamp(eventtime) AS timestamp) AS called,
      split_part(eventsource, '.', 1) AS service,
      eventname AS operation,
      coalesce(errorcode, 'ok') AS outcome,
      coalesce(errormessage, '') AS message,
      coalesce(useridentity.arn, useridentity.invokedby, concat(useridentity.type, ' ', coalesce(useridentity.principalid, ''))) AS principal,
      CASE WHEN useridentity.type = 'AssumedRole' THEN useridentity.sessioncontext.sessionissuer.username END AS role,
      CASE WHEN useridentity.type = 'AssumedRole' THEN useridentity.sessioncontext.ec2roledelivery END AS delivery,
      CASE WHEN useridentity.type = 'AssumedRole' THEN regexp_extract(useridentity.arn, '/(i-[^/]*)$', 1) END AS session,
      useridentity.accountid AS account,
      useridentity.accesskeyid AS accesskey,
      recipientaccountid AS owner,
      sourceipaddress AS source,
      coalesce(vpcendpointid, '') AS endpoint,
      awsregion AS region,
      coalesce(readonly, '') = 'true' AS readonly,
      requestparameters AS request,
      responseelements AS response,
      coalesce(json_extract_scalar(additionaleventdata, '$.recipient.attestationDocumentModuleId'), '') AS document,
      coalesce(element_at(resources, 1).arn, '') AS resource1,
      coalesce(element_at(resources, 2).arn, '') AS resource2,
      requestid,
      eventid,
      row_number() OVER (PARTITION BY eventid ORDER BY eventtime) AS copy
    FROM cloudtrail
    WHERE eventsource IN ('kms.amazonaws.com', 's3.amazonaws.com', 'ec2.amazonaws.com', 'cloudtrail.amazonaws.com')
  ) AS every
  WHERE copy = 1
),
-- Calls to KMS name the key in their resources or, where they were refused, elsewhere.
named AS (
  SELECT
    records.*,
    service = 'kms' AND operation IN ('Decrypt', 'Encrypt', 'ReEncrypt', 'GenerateDataKey', 'GenerateDataKeyWithoutPlaintext', 'GenerateDataKeyPair',
      'GenerateDataKeyPairWithoutPlaintext', 'DeriveSharedSecret', 'GenerateMac', 'VerifyMac', 'Sign', 'Verify') AS used,
    CASE
      WHEN service <> 'kms' THEN ''
      WHEN '${key}' IN (resource1, resource2) THEN '${key}'
      WHEN strpos(resource1, ':kms:') > 0 THEN resource1
      WHEN strpos(resource2, ':kms:') > 0 THEN resource2
      WHEN json_extract_scalar(request, '$.keyId') IN ('${key}', split_part('${key}', '/', 2)) OR strpos(message, '${key}') > 0 THEN '${key}'
      ELSE coalesce(json_extract_scalar(request, '$.keyId'), '')
    END AS key,
    CASE
      WHEN service <> 's3' OR '${object}' = '' THEN ''
      WHEN json_extract_scalar(request, '$.bucketName') = '${bucket}' AND json_extract_scalar(request, '$.key') = '${object}' THEN '${bucket}/${object}'
      WHEN split_part(trim(LEADING '/' FROM json_extract_scalar(request, '$["x-amz-copy-source"]')), '?', 1) = '${bucket}/${object}' THEN '${bucket}/${object}'
      WHEN json_extract_scalar(request, '$.bucketName') = '${bucket}' AND NOT readonly
        AND (json_extract_scalar(request, '$.key') IS NULL OR operation = 'DeleteObjects') THEN '${bucket}/'
      ELSE ''
    END AS object,
    split_part(trim(LEADING '/' FROM json_extract_scalar(request, '$["x-amz-copy-source"]')), '?', 1) = '${bucket}/${object}' AS copied,
    CASE WHEN operation = 'ReEncrypt' THEN json_extract(request, '$.sourceEncryptionContext') ELSE json_extract(request, '$.encryptionContext') END AS context
  FROM records
),
calls AS (
  SELECT
    named.*,
    service = 'kms' AND operation LIKE 'GenerateDataKey%' AS making,
    service = 'kms' AND (operation = 'Decrypt' OR operation LIKE 'GenerateDataKey%') AS unlocks,
    outcome = 'ok' AS ok,
    coalesce(session, '') AS instance,
    coalesce(session, '') = '' OR coalesce(delivery, '') = '' OR coalesce(account <> owner, false) OR coalesce(role, '') <> '${role}' AS stranger,
    coalesce(json_extract_scalar(context, '$["unlock:set"]'), '') AS diskset,
    CASE WHEN service <> 'kms' THEN 0 WHEN operation LIKE 'GenerateDataKey%' THEN 1 ELSE 2 END AS stage
  FROM named
  WHERE service = 'kms'
      AND split_part('${key}', '/', 2) IN (split_part(key, '/', 2), split_part(resource1, '/', 2), split_part(resource2, '/', 2))
      AND (used OR NOT readonly)
    OR object <> ''
    OR service = 'cloudtrail' AND operation IN ('StopLogging', 'DeleteTrail', 'UpdateTrail', 'PutEventSelectors')
),
-- When instances started. Records of one start that come from two operations are one.
launches AS (
  SELECT
    called, operation,
    CASE WHEN operation = 'RebootInstances' THEN json_extract(request, '$.instancesSet.items') ELSE json_extract(response, '$.instancesSet.items') END AS items
  FROM records
  WHERE service = 'ec2' AND outcome = 'ok' AND operation IN ('RunInstances', 'StartInstances', 'RebootInstances')
),
launched AS (
  SELECT
    called, operation,
    json_extract_scalar(json_array_get(items, n), '$.instanceId') AS started,
    json_extract_scalar(json_array_get(items, n), '$.privateIpAddress') AS address
  FROM launches CROSS JOIN UNNEST(sequence(0, coalesce(json_array_length(items), 0))) AS numbers (n)
),
starts AS (
  SELECT started, called AS began FROM (
    SELECT
      started, called, operation,
      lag(called) OVER (PARTITION BY started ORDER BY called) AS previous,
      lag(operation) OVER (PARTITION BY started ORDER BY called) AS operation_before
    FROM launched
    WHERE started IS NOT NULL
  ) AS every
  WHERE previous IS NULL OR operation_before = operation OR date_diff('second', previous, called) >= 180
),
addresses AS (
  SELECT started, count(*) AS known FROM launched WHERE started IS NOT NULL AND address IS NOT NULL GROUP BY started
),
-- The place of the first call with the same credentials, and whether the instance has
-- the address.
places AS (
  SELECT
    c.eventid,
    NOT regexp_like(c.source, '^[0-9.]+$|:')
    OR c.endpoint <> '' AND coalesce(max(a.known), 0) > 0 AND count(l.address) = 0
    OR (max(c.first_source) <> c.source OR max(c.first_endpoint) <> c.endpoint) AND (strpos(max(c.first_source), ':') > 0) = (strpos(c.source, ':') > 0) AS elsewhere
  FROM (
    SELECT
      calls.*,
      CASE WHEN accesskey IS NOT NULL THEN first_value(source) OVER (PARTITION BY accesskey, service ORDER BY called, stage, eventid) END AS first_source,
      CASE WHEN accesskey IS NOT NULL THEN first_value(endpoint) OVER (PARTITION BY accesskey, service ORDER BY called, stage, eventid) END AS first_endpoint
    FROM calls
    WHERE NOT stranger AND (used OR object <> '')
  ) AS c
  LEFT JOIN addresses a ON a.started = c.instance
  LEFT JOIN launched l ON l.started = c.instance AND l.address = c.source
  GROUP BY c.eventid, c.source, c.endpoint
),
-- What instances got, and since when they ran; without a record of it since their
-- first call.
known AS (
  SELECT c.eventid, c.called, c.stage, c.instance, c.key, json_format(c.context) AS context, max(s.began) AS began
  FROM calls c
  LEFT JOIN starts s ON s.started = c.instance AND s.began <= c.called + INTERVAL '2' MINUTE
  WHERE NOT c.stranger AND c.ok AND c.unlocks
  GROUP BY c.eventid, c.called, c.stage, c.instance, c.key, json_format(c.context)
),
got AS (
  SELECT eventid, called, stage, instance, key, context,
    coalesce(began, min(CASE WHEN began IS NULL THEN called END) OVER (PARTITION BY instance)) AS began
  FROM known
),
timely AS (
  SELECT
    eventid,
    date_diff('second', began, called) > 900 AS late,
    row_number() OVER (PARTITION BY instance, began, key, context, date_diff('second', began, called) > 900 ORDER BY called, stage, eventid) AS number
  FROM got
),
-- Sets of disks: who had each first.
sets AS (
  SELECT
    eventid,
    row_number() OVER (PARTITION BY diskset ORDER BY called, stage, eventid) AS number,
    first_value(instance) OVER (PARTITION BY diskset ORDER BY called, stage, eventid) AS maker
  FROM calls
  WHERE unlocks AND ok AND diskset <> ''
)
SELECT
  c.called,
  concat(c.service, ':', c.operation) AS call,
  c.outcome,
  CASE WHEN c.instance = '' THEN c.principal ELSE c.instance END AS who,
  c.source,
  c.endpoint,
  c.key,
  c.object,
  json_format(c.context) AS context,
  concat_ws(' ',
    CASE WHEN c.outcome LIKE '%AccessDenied%' OR c.outcome LIKE '%Unauthorized%' OR c.outcome LIKE '%NotAuthorized%'
      OR c.outcome IN ('DisabledException', 'KMSInvalidStateException') THEN 'denied' END,
    CASE WHEN c.outcome IN ('InvalidCiphertextException', 'IncorrectKeyException') THEN 'wrong-ciphertext' END,
    CASE WHEN c.used AND c.stranger THEN 'not-the-role' END,
    CASE WHEN c.used AND c.key <> '${key}' THEN 'other-region' END,
    CASE WHEN c.used AND c.key = '${key}' AND json_size(c.request, '$') > 0
      AND NOT coalesce(json_extract_scalar(c.context, '$.purpose') = '${purpose}' AND json_size(c.context, '$') = CASE WHEN '${source}' = 'header' AND c.diskset <> '' THEN 2
        WHEN '${source}' = 'header' THEN 0 ELSE 1 END, false) THEN 'other-context' END,
    CASE WHEN c.used AND c.ok AND c.operation = 'ReEncrypt' THEN 're-encrypted' END,
    CASE WHEN c.used AND c.instance <> '' AND NOT c.unlocks THEN 'other-operation' END,
    CASE WHEN c.unlocks AND c.document <> '' AND c.instance <> '' AND strpos(c.document, concat(c.instance, '-')) <> 1 OR p.elsewhere THEN 'elsewhere' END,
    CASE WHEN s.number > 1 AND c.making THEN 'set-exists' END,
    CASE WHEN s.number > 1 AND ('${source}' <> 'header' OR ${instance_store}) AND c.key = '${key}' AND c.instance <> '' AND s.maker <> '' AND s.maker <> c.instance THEN 'set-moved' END,
    CASE WHEN c.service = 'kms' AND NOT c.used AND c.ok THEN
      CASE c.operation WHEN 'CreateGrant' THEN 'grant' WHEN 'PutKeyPolicy' THEN 'key-policy' WHEN 'DisableKey' THEN 'key-disabled'
        WHEN 'ScheduleKeyDeletion' THEN 'key-deletion' WHEN 'DeleteKey' THEN 'key-deletion' WHEN 'DisableKeyRotation' THEN 'rotation-off' ELSE 'key-changed' END END,
    CASE WHEN c.service = 'cloudtrail' AND c.ok THEN 'trail-changed' END,
    CASE WHEN c.object LIKE '%/' AND c.ok THEN 'bucket-changed' END,
    CASE WHEN c.object <> '' AND c.object NOT LIKE '%/' AND c.ok AND (c.readonly AND c.stranger OR NOT c.readonly AND c.copied) THEN 'ciphertext-read' END,
    CASE WHEN c.object <> '' AND c.object NOT LIKE '%/' AND c.ok AND NOT c.readonly AND NOT coalesce(c.copied, false) THEN 'ciphertext-replaced' END,
    CASE WHEN NOT c.stranger AND (c.used OR c.object <> '') AND c.delivery = '1.0' THEN 'imdsv1' END,
    CASE WHEN t.late THEN 'late' END,
    CASE WHEN NOT t.late AND t.number > 1 THEN 'repeated' END) AS found,
  c.requestid,
  c.eventid
FROM calls c
LEFT JOIN places p ON p.eventid = c.eventid
LEFT JOIN timely t ON t.eventid = c.eventid
LEFT JOIN sets s ON s.eventid = c.eventid
