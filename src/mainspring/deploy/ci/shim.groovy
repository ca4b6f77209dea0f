// Runs a declarative Jenkinsfile on this machine: groovy shim.groovy Jenkinsfile BRANCH [NAME=VALUE]... [--refuse]
// Sections and steps are the ones below; any other word is an error, as Jenkins has it. Shell steps are really run.
// What ran is printed, a line each: "stage NAME", "skipped NAME", "sh SCRIPT", "post NAME", "result RESULT".

class Refused extends RuntimeException {}
class Failed extends RuntimeException { Failed(String text) { super(text) } }

class Build {
    File folder
    String branch
    boolean approve
    Map<String, Object> params = [:]
    Map<String, String> env = new HashMap<String, String>(System.getenv())
    String result = 'SUCCESS'

    static void say(String text) { println text.replace('\n', ' ; ') }

    List<Object> shell(String script) {
        def lines = script.stripIndent().trim()
        say("sh ${lines}")
        def builder = new ProcessBuilder('sh', '-e', '-c', lines).directory(folder)
        builder.environment().putAll(env.findAll { it.value != null }.collectEntries { k, v -> [k, v.toString()] })
        builder.redirectError(ProcessBuilder.Redirect.INHERIT)
        def process = builder.start()
        process.outputStream.close()
        def out = process.inputStream.text
        return [process.waitFor(), out]
    }
}

abstract class Words {
    Build build

    // A word that is not known is a mistake, not nothing.
    def methodMissing(String name, args) { throw new IllegalStateException("no such word here: ${name}") }
    def propertyMissing(String name) { throw new IllegalStateException("no such name here: ${name}") }
    def propertyMissing(String name, value) { throw new IllegalStateException("nothing may be set here: ${name}") }

    protected void run(Closure body, Object delegate) {
        def copy = body.rehydrate(delegate, null, null)
        copy.resolveStrategy = Closure.DELEGATE_ONLY
        copy.call()
    }
}

class Environment extends Words {
    Map getEnv() { build.env }
    def propertyMissing(String name) { build.env[name] }
    def propertyMissing(String name, value) { build.env[name] = value.toString() }
}

class Options extends Words {
    void disableConcurrentBuilds() {}
    void timeout(Map given) { assert given.keySet().containsAll(['time', 'unit']) }
    void buildDiscarder(given) {}
    def logRotator(Map given) { given }
}

class Triggers extends Words { void cron(String when) { assert when ==~ /(?s)(TZ=\S+\n)?\S+ \S+ \S+ \S+ \S+/ } }

class Parameters extends Words {
    void booleanParam(Map given) {
        if (!build.params.containsKey(given.name)) { build.params[given.name] = given.defaultValue }
    }
}

class Condition extends Words {
    List<Boolean> met = []
    void branch(String name) { met << (build.branch == name) }
    void environment(Map given) { met << (build.env[given.name] == given.value) }
    void expression(Closure body) {
        def names = new Names(build: build)
        def copy = body.rehydrate(names, null, null)
        copy.resolveStrategy = Closure.DELEGATE_ONLY
        met << (copy.call() as boolean)
    }
    void not(Closure body) {
        def inner = new Condition(build: build)
        run(body, inner)
        met << !inner.met.every()
    }
}

class Names extends Words {
    Map getParams() { build.params }
    Map getEnv() { build.env }
}

class Steps extends Words {
    Map getParams() { build.params }
    Map getEnv() { build.env }
    def sh(Map given) {
        def (status, out) = build.shell(given.script as String)
        if (given.returnStatus) { return status }
        if (status != 0) { throw new Failed("${given.script}: ${status}") }
        return given.returnStdout ? out : null
    }
    void sh(String script) {
        def (status, out) = build.shell(script)
        print out
        if (status != 0) { throw new Failed("${script}: ${status}") }
    }
    void input(Map given) {
        Build.say("input ${given.message}")
        if (!build.approve) { throw new Refused() }
    }
    void script(Closure body) { run(body, this) }
    void archiveArtifacts(Map given) { assert ['artifacts', 'allowEmptyArchive'].containsAll(given.keySet()) }
}

class Post extends Words {
    String ended
    private void on(String name, boolean holds, Closure body) {
        if (holds) {
            Build.say("post ${name}")
            run(body, new Steps(build: build))
        }
    }
    void always(Closure body) { on('always', true, body) }
    void failure(Closure body) { on('failure', ended == 'FAILURE', body) }
    void unsuccessful(Closure body) { on('unsuccessful', ended != 'SUCCESS', body) }
    void success(Closure body) { on('success', ended == 'SUCCESS', body) }
}

class Axis extends Words {
    String title
    List<String> all
    void name(String title) { this.title = title }
    void values(String... all) { this.all = all as List }
}

class Axes extends Words {
    List<Axis> axes = []
    void axis(Closure body) {
        def one = new Axis(build: build)
        run(body, one)
        axes << one
    }
}

class Matrix extends Words {
    Axes found
    Closure inner
    void axes(Closure body) { found = new Axes(build: build); run(body, found) }
    void stages(Closure body) { inner = body }
    void carryOut() {
        assert found.axes.size() == 1 : 'one axis is known here'
        def axis = found.axes[0]
        def failed = null
        axis.all.each { value ->
            build.env[axis.title] = value
            try { run(inner, new Stages(build: build, nested: true)) } catch (Failed error) { failed = error }
        }
        build.env.remove(axis.title)
        if (failed != null) { throw failed }
    }
}

class Stage extends Words {
    Closure wanted, work, after
    Matrix cells
    void when(Closure body) { wanted = body }
    void steps(Closure body) { work = body }
    void post(Closure body) { after = body }
    void matrix(Closure body) { cells = new Matrix(build: build); run(body, cells) }
}

class Stages extends Words {
    boolean nested
    void stage(String name, Closure body) {
        if (build.result != 'SUCCESS') { Build.say("skipped ${name}"); return }
        def one = new Stage(build: build)
        run(body, one)
        if (one.wanted != null) {
            def condition = new Condition(build: build)
            run(one.wanted, condition)
            if (!condition.met.every()) { Build.say("skipped ${name}"); return }
        }
        Build.say("stage ${name}")
        def ended = 'SUCCESS'
        try {
            if (one.cells != null) { one.cells.carryOut() } else { run(one.work, new Steps(build: build)) }
        } catch (Refused error) {
            ended = 'ABORTED'
        } catch (Failed error) {
            ended = 'FAILURE'
        }
        if (one.after != null) {
            run(one.after, new Post(build: build, ended: ended))
        }
        if (ended != 'SUCCESS' && nested) { throw new Failed(name) }
        if (ended != 'SUCCESS') { build.result = ended }
    }
}

class Pipeline extends Words {
    Closure after
    void agent(Closure body) { run(body, new Agent(build: build)) }
    void options(Closure body) { run(body, new Options(build: build)) }
    void triggers(Closure body) { run(body, new Triggers(build: build)) }
    void parameters(Closure body) { run(body, new Parameters(build: build)) }
    void environment(Closure body) { run(body, new Environment(build: build)) }
    void stages(Closure body) { run(body, new Stages(build: build)) }
    void post(Closure body) { after = body }
}

class Agent extends Words { void label(String name) {} }

def words = args as List
def refuse = words.remove('--refuse')
def file = new File(words[0])
def build = new Build(folder: file.absoluteFile.parentFile, branch: words[1], approve: !refuse)
build.env.WORKSPACE = build.folder.path
words.drop(2).each {
    def (name, value) = it.split('=', 2)
    build.params[name] = value == 'true' ? true : value == 'false' ? false : value
}
def binding = new Binding()
binding.setVariable('pipeline', { Closure body ->
    def whole = new Pipeline(build: build)
    whole.run(body, whole)
    if (whole.after != null) { whole.run(whole.after, new Post(build: build, ended: build.result)) }
})
new GroovyShell(this.class.classLoader, binding).evaluate(file)
Build.say("result ${build.result}")
System.exit(build.result == 'SUCCESS' ? 0 : 1)
