// Records: bridges, ports and interfaces as vsctl shows and sets them, in the columns of Open vSwitch's database.
//
// This switch has no database of rows: a Bridge row is a v1::Bridge; a Port row and the Interface row of the same name
// are two views of one v1::Port; the one Open_vSwitch row is v1::Settings and the version. Setting a column fills the
// message and the paths of its update mask.
#pragma once

#include <google/protobuf/field_mask.pb.h>

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vswitch/v1/resources.pb.h"

namespace vswitch::cli {

namespace v1 = ::vswitch::v1;

enum class Table { bridge, port, interface, open_vswitch };

// "Interface", "interface"; nullopt if it is no table. `problem` then says which there are.
std::optional<Table> find_table(std::string_view name, std::string* problem);
std::string_view table_name(Table table);

// A column's value: text for a scalar or a set's elements, or a map.
struct Column {
  std::string name;
  bool is_map = false;
  std::vector<std::string> set;  // as printed, quoted where needed; empty: []
  std::map<std::string, std::string> map;
};
using Record = std::vector<Column>;

Record bridge_record(const v1::Bridge& bridge, const std::vector<std::string>& ports);
Record port_record(const v1::Port& port);
Record interface_record(const v1::Port& port);
Record open_vswitch_record(const v1::Settings& settings, const std::string& version);
std::string format_column(const Column& column);
std::vector<std::string> column_names(Table table);      // those that can be read
std::vector<std::string> settable_columns(Table table);  // those that can be set
// For completion: whether a column takes COLUMN:KEY=VALUE, the keys of other_config, the values of columns that have
// few, and the options of an interface type.
bool is_map_column(std::string_view column);
std::vector<std::string> other_config_keys(Table table, std::string_view column);
std::vector<std::string> column_values(Table table, std::string_view column);
std::vector<std::string> type_options(std::string_view type);
const Column* find_column(const Record& record, std::string_view name);

// COLUMN[:KEY][OP VALUE]
struct ColumnExpression {
  std::string column;   // lower case, - as _
  std::string spelled;  // as it was written
  std::optional<std::string> key;
  std::string op;  // "", "=", "!=", "<", ">", "<=", ">="
  std::string value;
};
ColumnExpression parse_column_expression(std::string_view text);
// "" or what is wrong with COLUMN[:KEY], or with a condition on it, for any row of the table.
std::string check_column(Table table, std::string_view text);
std::string check_condition(Table table, std::string_view text);
// The value that a condition is about: of the column or of its key; "[]" if there is none.
std::string format_value(const Record& record, const ColumnExpression& what);
// REQUIRES a condition that check_condition() finds nothing wrong with.
bool matches(const Record& record, const ColumnExpression& condition);

// What `set`, `add`, `remove` and `clear` gather for one row.
template <typename Message>
struct Update {
  Message message;
  google::protobuf::FieldMask mask;
};
// Each returns "" or what is wrong.
std::string set_column(Table table, const ColumnExpression& what, Update<v1::Port>& update);
std::string set_bridge_column(const ColumnExpression& what, Update<v1::Bridge>& update);
std::string set_settings_column(const ColumnExpression& what, Update<v1::Settings>& update);
// The short form of add-port: a column of Port or Interface, else an option of the port's type.
std::string set_short_form(const ColumnExpression& what, Update<v1::Port>& update);

// "{a=b,c=d}" or "a=b,c=d" or a=b c=d ...; false if it is no map. Strings may be quoted.
bool parse_map(std::string_view text, std::map<std::string, std::string>& out);
// "[10,20]", "10,20", "" and "[]".
std::vector<std::string> parse_set(std::string_view text);

}  // namespace vswitch::cli
