// trireme report: a run on one page.

#include <string>

#include "fmt/format.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"
#include "tools/commands.h"
#include "trainer/report/report.h"
#include "trainer/run/is_run.h"
#include "trainer/run/run_folder.h"

namespace trireme {
namespace {

constexpr char kName[] = "report";

absl::Status Write(const ParsedCommand& arguments) {
  const RunFolder run(arguments.positionals()[0]);
  RETURN_IF_ERROR(CheckIsRun(run.root()));
  const std::string out =
      arguments.Given("out").value_or(run.root() + "/report.html");
  if (arguments.Has("out")) RETURN_IF_ERROR(CheckReplacesReport(out));
  ASSIGN_OR_RETURN(const std::string page, ReportOfRun(run));
  RETURN_IF_ERROR(WriteFileAtomically(out, page));
  fmt::print("{}\n", out);
  return absl::OkStatus();
}

int Run(const ParsedCommand& arguments, int, char**) {
  const absl::Status status = Write(arguments);
  return status.ok() ? 0 : Fail(kName, status);
}

}  // namespace

Command ReportCommand() {
  return {{.name = kName,
           .summary = "writes a run's curves, times, samples and settings as "
                      "one HTML page",
           .positionals = {{.name = "RUN", .help = "the run's folder"}},
           .options = {{.name = "out",
                        .value = "FILE",
                        .help = "the page (default: RUN/report.html, which is "
                                "replaced); elsewhere it replaces an earlier "
                                "report only"}},
           .example = "trireme report runs/fashion-mnist"},
          Run};
}

}  // namespace trireme
