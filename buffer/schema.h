/* SPDX-License-Identifier: Apache-2.0 */
/* The numbered files of buffer/schema, built in as text: buffer_schema[0] is 001.sql and brings user_version to 1. */
#ifndef BUFFER_SCHEMA_H
#define BUFFER_SCHEMA_H

extern const char *const buffer_schema[];
extern const int buffer_schema_count;

#endif
